"""The OpenAPI document describes exactly what the service does."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from msgspec import structs

from ledger.api.app import ROUTES, make_app
from ledger.api.descriptions import ENVELOPE, FIELDS
from ledger.api.openapi import HEADER_SCHEMAS
from ledger.api.parameter_descriptions import PARAMETERS
from ledger.api.problems import STATUS
from ledger.api.routes import Route
from ledger.domain.catalogue import CATALOGUE
from ledger.log.new_event import NewEvent
from tests.api.json_schema import Schemas
from tests.conftest import Service
from tests.domain.contract import TRANSITIONS
from tests.events import campaign, content, cost, credit, event, follow, job, price, reserve

SOME_ID = "11111111-1111-4111-8111-111111111111"

NOT_YET = {"unauthenticated", "forbidden", "rate-limited"}
SLUGS = {
    *("malformed", "unauthenticated", "forbidden", "not-found", "too-large", "unsupported-media-type", "rate-limited"),
    *("budget-exceeded", "version-conflict", "event-id-conflict", "illegal-transition", "invalid-event"),
    *("unknown-reference", "reference-mismatch", "currency-mismatch", "overloaded", "projection-behind"),
    "database-unavailable",
}


@pytest.fixture(scope="module")
async def document(shared: Service) -> Any:
    """The document, as served."""
    async with shared.client.get("/openapi.json") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        return await answer.json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield path, method and operation of each operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of the document."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from nodes(member)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


async def test_it_is_an_openapi_3_1_document(document: Any) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]
    for path, method, operation in operations(document):
        assert path.startswith("/")
        assert method in ("get", "post", "put", "patch", "delete")
        assert operation["responses"]
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert answer["description"]
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])


async def test_every_reference_resolves_and_every_schema_is_used(document: Any) -> None:
    references = {node["$ref"] for node in nodes(document) if "$ref" in node}

    for reference in references:
        assert Schemas(document).resolve(reference)
    assert {reference.rpartition("/")[2] for reference in references} == set(document["components"]["schemas"])


async def test_descriptions_are_sentences(document: Any) -> None:
    for _, _, operation in operations(document):
        assert operation["summary"].endswith(".") or operation["summary"].endswith("?")
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                assert answer["description"].endswith("."), answer["description"]


async def test_every_operation_parameter_schema_and_field_is_described(document: Any) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    undescribed = [path for path, _, operation in operations(document) if not set(operation["tags"]) <= tags]
    for path, _, operation in operations(document):
        described = [operation, *operation["parameters"], *operation["responses"].values()]
        undescribed += [f"{path}: {one}" for one in described if not one.get("description")]
    for name, schema in document["components"]["schemas"].items():
        fields = {name: schema} | {f"{name}.{field}": one for field, one in schema.get("properties", {}).items()}
        undescribed += [field for field, one in fields.items() if not one.get("description")]

    assert undescribed == []


def test_every_description_is_used(document: Any) -> None:
    schemas = document["components"]["schemas"]
    fields = {f"{name}.{field}" for name, schema in schemas.items() for field in schema.get("properties", ())}
    queries = {route.query for route in ROUTES if route.query is not None}
    parameters = {
        *(f"{query.__name__}.{field.encode_name}" for query in queries for field in structs.fields(query)),
        *(f"path.{name}" for route in ROUTES for name in re.findall(r"{(\w+)}", route.path)),
        *(f"header.{name}" for name in HEADER_SCHEMAS),
    }

    assert unused(FIELDS, fields) == set()
    assert unused(PARAMETERS, parameters) == set()
    assert unused(ENVELOPE, {f"NewEvent.{field.encode_name}" for field in structs.fields(NewEvent)}) <= {"type"}


def unused(descriptions: dict[str, str], names: set[str]) -> set[str]:
    """Return the descriptions that none of these names (`Schema.field`) uses."""
    plain = {name.partition(".")[2] for name in names if name not in descriptions}
    return set(descriptions) - names - plain


async def test_titles_are_unique(document: Any) -> None:
    titles = Counter(node["title"] for node in nodes(document["components"]) if isinstance(node.get("title"), str))

    assert [title for title, count in titles.items() if count > 1] == []
    assert set(titles) == set(document["components"]["schemas"])


async def test_defaults_and_limits_are_listed(document: Any) -> None:
    def parameter(path: str, name: str) -> Any:
        parameters = document["paths"][path]["get"]["parameters"]
        return next(one["schema"] for one in parameters if one["name"] == name)

    hold = document["components"]["schemas"]["CostReserved"]["properties"]["expires_in"]
    assert (hold["default"], "default 900" in hold["description"]) == (900, True)
    assert parameter("/v1/events", "limit") == {"type": "integer", "minimum": 1, "maximum": 5000, "default": 100}
    assert parameter("/v1/campaigns", "limit") == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    assert parameter("/v1/campaigns", "sort")["default"] == "-created_at,id"


async def test_it_lists_exactly_the_routes(document: Any) -> None:
    app = make_app(None)  # type: ignore[arg-type]
    served = {
        (route.resource.canonical, route.method)
        for route in app.router.routes()
        if route.resource is not None and isinstance(route.resource, web.Resource)
    }

    listed = {(path, method.upper()) for path, method, _ in operations(document)}
    assert listed | {(path, "HEAD") for path, method in listed if method == "GET"} == served


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_it_lists_exactly_the_parameters(document: Any, route: Route) -> None:
    parameters = document["paths"][route.path][route.method.lower()]["parameters"]
    by_location = {
        location: [parameter["name"] for parameter in parameters if parameter["in"] == location]
        for location in ("query", "path")
    }

    fields = structs.fields(route.query) if route.query else ()
    accepted = [field.encode_name for field in fields]
    needed = [field.encode_name for field in fields if field.required]
    assert sorted(by_location["query"]) == sorted(accepted)
    assert by_location["path"] == re.findall(r"{(\w+)}", route.path)
    assert len({(parameter["in"], parameter["name"]) for parameter in parameters}) == len(parameters)
    for parameter in parameters:
        assert parameter["schema"]
        assert parameter["required"] == (parameter["in"] == "path" or parameter["name"] in needed)


async def test_the_supported_headers_are_listed(document: Any) -> None:
    def headers(path: str, method: str) -> set[str]:
        parameters = document["paths"][path][method]["parameters"]
        return {parameter["name"] for parameter in parameters if parameter["in"] == "header"}

    assert headers("/v1/campaigns", "get") == {"Ledger-Min-Position"}
    assert headers("/v1/spend", "get") == {"Ledger-Min-Position"}
    assert headers("/v1/events", "post") == {"Idempotency-Key"}
    assert headers("/v1/events/stream", "get") == {"Last-Event-ID"}


async def test_ndjson_is_listed_for_the_operations_that_return_it(document: Any) -> None:
    in_lines = {
        path for path, _, operation in operations(document) if "x-ndjson" in str(operation["responses"].get("200"))
    }

    assert in_lines == {"/v1/events", "/v1/campaigns/{id}/timeline", "/v1/log/export"}


async def test_the_event_stream_is_listed_as_server_sent_events_only(document: Any) -> None:
    answer = document["paths"]["/v1/events/stream"]["get"]["responses"]["200"]

    assert list(answer["content"]) == ["text/event-stream"]


def sent_types(document: Any) -> dict[str, Any]:
    """Return the schemas of the events that clients may send, by type."""
    body = document["paths"]["/v1/events"]["post"]["requestBody"]
    assert {*body["content"], *body["x-media-types"]} == {"application/json", "application/x-ndjson"}
    schemas = Schemas(document)
    one, many = body["content"]["application/json"]["schema"]["oneOf"]
    assert (many["type"], many["minItems"], many["maxItems"], many["items"]) == ("array", 1, 5000, one)
    sent = [schemas.resolve(choice["$ref"]) for choice in schemas.resolve(one["$ref"])["anyOf"]]
    return {struct["properties"]["type"]["enum"][0]: struct for struct in sent}


async def test_exactly_the_events_that_clients_may_send_are_described(document: Any) -> None:
    described = sent_types(document)

    assert set(described) == {name for name, kind in CATALOGUE.items() if not kind.by_service}
    assert set(described) == set(TRANSITIONS)
    assert all(struct["additionalProperties"] is False for struct in described.values())
    assert "cost.denied" not in str(document)
    assert "cost.expired" not in str(document)


EXAMPLES = [
    campaign(),
    campaign(description="D", currency="EUR", end_date="2026-01-01"),
    content(metadata={"a": 1}),
    job(),
    job(budget="1", currency="EUR", max_retries=3),
    cost(),
    {**cost(), "occurred_at": "2025-01-01T00:00:00Z", "expected_version": 0, "correlation_id": SOME_ID},
    reserve(expires_in=1),
    follow(campaign(), "campaign.metrics_recorded", {"clicks": 1, "revenue": "1.5"}),
    follow(job(), "job.progressed", {"progress": "0.5"}),
    follow(job(), "job.completed", {"output_data": {"a": 1}}),
    follow(cost(), "cost.adjusted", {"amount": "-1", "reason": "R"}),
    credit(agent_job_id=SOME_ID),
    follow(reserve(), "cost.extended", {"expires_in": 604_800}),
    {"type": "job.started", "stream_id": SOME_ID},
]


@pytest.mark.parametrize("sent", EXAMPLES, ids=lambda sent: str(sent["type"]))
async def test_valid_events_match_their_schema_with_money_as_string_and_as_number(
    document: Any, sent: dict[str, Any]
) -> None:
    schemas = Schemas(document)
    struct = sent_types(document)[sent["type"]]
    amounts = ("budget", "cost", "amount", "revenue", "progress")
    data = sent.get("data", {})
    as_numbers = {name: float(value) if name in amounts else value for name, value in data.items()}

    assert schemas.errors(struct, sent) == []
    if "data" in sent:
        assert schemas.errors(struct, {**sent, "data": as_numbers}) == []
        for name in set(amounts) & set(data):
            assert schemas.errors(struct, {**sent, "data": {**data, name: True}})


@pytest.mark.parametrize(
    "sent",
    [
        {**cost(), "kost": 1},
        cost(kost=1),
        cost(tokens_used=-1),
        event("cost.recorded", {}),
        campaign(name=""),
        campaign(name="n" * 256),
        reserve(expires_in=0),
        job(input_data=[]),
        content(metadata="m"),
        job(budget=[1]),
        cost("1_0"),
        cost("+1"),
        campaign("1."),
    ],
)
async def test_invalid_events_do_not_match_their_schema(document: Any, sent: dict[str, Any]) -> None:
    assert Schemas(document).errors(sent_types(document)[sent["type"]], sent)


@pytest.fixture(scope="module")
async def examples(shared: Service) -> dict[str, str]:
    """Create rows of every kind in most statuses; return values for path parameters."""
    created, queued, asset, held = campaign(), job(), content(), reserve(campaign_id=None)
    spent = cost("200", campaign_id=created["id"])
    await shared.append(created, campaign(budget="0"), queued, job(created["id"], budget="1.5"), asset, held, spent)
    await shared.append(
        follow(queued, "job.started"),
        follow(queued, "job.completed", {"output_data": {}}),
        follow(held, "cost.settled", {"cost": "1", "tokens_used": 3}),
        {**cost("1", model_used="m"), "correlation_id": SOME_ID, "causation_id": SOME_ID},
    )
    await shared.append(price("gpt-4o"))
    (published,) = (await shared.get("/v1/prices"))["items"]
    return {
        "campaigns": created["id"],
        "agent-jobs": queued["id"],
        "content-assets": asset["id"],
        "cost": held["id"],
        "prices": published["id"],
    }


IN_JSON = [route.path for route in ROUTES if route.method == "GET" and "application/json" in route.media]
# Without keys there are no keys to list: see test_key_rules.py.
GETS = [path for path in IN_JSON if path not in ("/openapi.json", "/v1/keys") and not path.startswith("/v1/log/")]


@pytest.mark.parametrize("path", GETS)
async def test_responses_match_their_schema(
    shared: Service, document: Any, examples: dict[str, str], path: str
) -> None:
    noun = path.split("/")[2] if path.count("/") > 1 else ""
    item = examples["cost"] if noun == "budget-entries" else examples.get(noun, "")
    address = path.format(id=item, position=1, category="cost", stream_id=examples["cost"])
    parameters = {"group_by": "day,resource_type,model_used,agent_type"} if path == "/v1/spend" else {}

    answer = await shared.get(address, **parameters)

    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert Schemas(document).errors(schema, answer) == []


@pytest.mark.parametrize(
    ("body", "mode", "status"),
    [
        (cost(), "atomic", "201"),
        ([cost(), cost("-1"), {**cost(), "data": 5}], "independent", "200"),
        ([cost("1"), {**cost(), "kost": 1}], "atomic", "422"),
        (follow(campaign(), "campaign.paused"), "atomic", "409"),
        (follow(campaign(), "campaign.paused", expected_version=2), "atomic", "409"),
        ([], "atomic", "400"),
    ],
)
async def test_responses_to_an_append_match_their_schema(
    shared: Service, document: Any, body: Any, mode: str, status: str
) -> None:
    answered, answer = await shared.post(body, mode=mode)

    assert str(answered) == status
    (content_of,) = document["paths"]["/v1/events"]["post"]["responses"][status]["content"].values()
    assert Schemas(document).errors(content_of["schema"], answer) == []


async def test_every_problem_is_listed_with_its_status(document: Any) -> None:
    listed: dict[str, set[int]] = {}
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            if "application/problem+json" in answer["content"]:
                for name in answer["description"].split(", "):
                    listed.setdefault(name, set()).add(int(status))

    assert set(listed) >= SLUGS - NOT_YET
    assert all(statuses == {STATUS[name]} for name, statuses in listed.items())
    assert set(STATUS) >= SLUGS
