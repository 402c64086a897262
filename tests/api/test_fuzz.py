"""Requests generated from the OpenAPI document, valid and invalid, with a key of each role or none.

Every response is a documented one (status, media type, headers, body), never a 500, and invalid requests are refused.
`LEDGER_TEST_FUZZ=200` sets the number of requests of each kind for each operation.
A failure prints the request as a curl command.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import aiohttp
import hypothesis
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as conformance
from sqlalchemy import URL

from ledger.api.app import listen, serving
from ledger.database import Database
from ledger.domain.access import Role
from ledger.key_ring import KeyRing
from tests.api.test_keys import key_header
from tests.conftest import administer
from tests.events import campaign, content, cost, follow, job, price, reserve

EXAMPLES = int(os.environ.get("LEDGER_TEST_FUZZ", "4"))
SECONDS_MAX = 30.0
"""Timeout of one request; only a hang takes this long."""

FEED = "/v1/events/stream"
FEED_SECONDS_MAX = 2.0
FEED_EXAMPLES_MAX = 3
"""An event stream has no end: its headers, and what is received within this time, are enough."""


def no_bug(ctx: Any, response: Any, case: Any) -> None:
    """Fail on 500. Not `not_a_server_error`: 503 (position not reached yet) is a documented response."""
    assert response.status_code != 500, response.content


def no_wrong_data_taken(ctx: Any, response: Any, case: Any) -> None:
    """Fail if an invalid request is accepted; with mode=independent each event's result counts, within a 200."""
    if case.path == "/v1/events" and case.method == "POST" and (case.query or {}).get("mode") == "independent":
        return
    conformance.negative_data_rejection(ctx, response, case)


def fits_its_schema(ctx: Any, response: Any, case: Any) -> None:
    """Fail if a body violates its schema; except event streams, which schemathesis compares with an event's schema."""
    if case.path != FEED:
        conformance.response_schema_conformance(ctx, response, case)


CHECKS = [
    no_bug,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    fits_its_schema,
    no_wrong_data_taken,
    # Not positive_data_acceptance: a valid request may be refused by a rule that a schema cannot express
    # (a cursor of another collection, a key twice in group_by, a hold for which the budget has no room).
    # Not ignored_auth, missing_required_header, unsupported_method: test_owasp.py checks them on every route.
    # Not use_after_free, ensure_resource_availability: they follow a resource from POST to DELETE, and there is none.
]


class Fuzzed(NamedTuple):
    """The URL of the service, the header of a key of each role, and existing values for path parameters."""

    url: str
    headers: dict[str, dict[str, str]]
    existing: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
async def fuzzed(server_url: URL, template: str, working_as: Callable[[URL], URL]) -> AsyncIterator[Fuzzed]:
    """A service with authentication, on its own database with some rows of every kind."""
    name = f"fuzz_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    database = Database(working_as(server_url.set(database=name)))
    # Names that are not generated: a revocation must not hit a key in use.
    headers = {role.value: await key_header(database, f"{role.value} {uuid.uuid4()}", role.value) for role in Role}
    opened, queued, asset, held = campaign(), job(), content(), reserve()
    events = [opened, queued, job(opened["id"]), asset, held, cost("2", campaign_id=opened["id"], model_used="m")]
    events += [published := price(), follow(queued, "job.started"), follow(held, "cost.settled", {"cost": "1"})]
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with (
        serving(database, listener, with_worker=True, key_ring=KeyRing(database)),
        aiohttp.ClientSession(url, headers=headers["admin"]) as client,
    ):
        async with client.post("/v1/events", json=events) as answer:
            assert answer.status == 201
        ids = {
            "campaigns": opened,
            "agent-jobs": queued,
            "content-assets": asset,
            "budget-entries": held,
            "prices": published,
        }
        existing = {f"/v1/{noun}/{{": {"id": event["id"]} for noun, event in ids.items()}
        existing |= {"/v1/events/{": {"position": 3}, "/v1/streams/": {"category": "cost", "stream_id": held["id"]}}
        yield Fuzzed(url, headers, existing)
    await database.close()
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def operations(url: str) -> Iterator[Any]:
    """Yield every operation of the service's OpenAPI document."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    schema.config.max_stream_events = 1
    # A generated key would be replaced by the one that the request is sent with: an invalid one would pass.
    schema.config.generation.with_security_parameters = False
    for found in schema.get_all_operations():
        yield found.ok()


def fuzz(operation: Any, headers: dict[str, str], fixed: dict[str, Any] | None, mode: GenerationMode) -> None:
    """Generate requests for an operation, and check each response."""
    fixed_parameters: dict[str, Any] = {"path_parameters": fixed} if fixed else {}
    is_feed = operation.path == FEED
    seconds = FEED_SECONDS_MAX if is_feed else SECONDS_MAX
    if mode is GenerationMode.POSITIVE:
        names = {parameter.name for parameter in (*operation.query, *operation.headers)}
        # A stream that begins with events, and reads that do not wait 5 s for a position that is never reached.
        fixed_parameters["query"] = {name: 0 for name in ("min_position",) if name in names} | (
            {"after": 0} if is_feed else {}
        )
        fixed_parameters["headers"] = {name: "0" for name in ("Ledger-Min-Position",) if name in names}
    # Deterministic requests, no database of examples, and no deadline that a busy machine could exceed.
    drawing = hypothesis.settings(
        max_examples=min(EXAMPLES, FEED_EXAMPLES_MAX) if is_feed else EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
        verbosity=hypothesis.Verbosity.quiet,
    )

    with requests.Session() as session:

        @drawing
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode, **fixed_parameters))
        def check_response(case: Any) -> None:
            case.call_and_validate(session=session, headers=headers, checks=CHECKS, timeout=seconds)

        check_response()


@pytest.mark.parametrize("role", [*(role.value for role in Role), None])
async def test_every_response_is_documented(fuzzed: Fuzzed, role: str | None) -> None:
    headers = fuzzed.headers[role] if role is not None else {}

    def fuzz_all() -> list[str]:
        faults = []
        for operation in operations(fuzzed.url):
            fixed = next((values for path, values in fuzzed.existing.items() if operation.path.startswith(path)), None)
            kinds: list[tuple[GenerationMode, dict[str, Any] | None]] = [
                (GenerationMode.POSITIVE, None),
                (GenerationMode.NEGATIVE, None),
            ]
            if fixed:
                kinds.append((GenerationMode.POSITIVE, fixed))
            for mode, path in kinds:
                try:
                    fuzz(operation, headers, path, mode)
                except hypothesis.errors.Unsatisfiable:
                    continue
                except schemathesis.errors.InvalidSchema:
                    raise
                except BaseExceptionGroup as group:
                    faults.append(f"{operation.label} ({mode.value}): {group}")
        return faults

    faults = await asyncio.to_thread(fuzz_all)

    assert faults == [], "\n\n".join(faults)
    async with aiohttp.ClientSession(fuzzed.url) as client, client.get("/v1/campaigns", headers=headers) as answer:
        assert answer.status == {None: 401, "metrics": 403}.get(role, 200), "a key in use was revoked"
