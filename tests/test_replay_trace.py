"""scripts/replay_trace.py: reading a trace, events and ids, posting to a fake service.

The data is the first 200 rows of the Azure LLM inference trace; see `data/README.md`.
"""

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from ledger.domain.catalogue import CATALOGUE

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "tests" / "data" / "azure_llm_trace_conv_2023_sample.csv"


def _load_script() -> Any:
    spec = importlib.util.spec_from_file_location("replay_trace", REPOSITORY / "scripts" / "replay_trace.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


replay_trace = _load_script()

GPT_4O, MINI = (replay_trace.Model("openai", name) for name in ("gpt-4o", "gpt-4o-mini"))


def trace_file(tmp_path: Path, *rows: str, line_end: str = "\n", header: str = replay_trace.HEADER) -> Path:
    path = tmp_path / "trace.csv"
    path.write_bytes("".join(line + line_end for line in (header, *rows)).encode("latin-1"))
    return path


def all_events(campaigns: int = 10, model: Any = GPT_4O) -> list[dict[str, Any]]:
    calls = replay_trace.read_trace(SAMPLE)
    return [event for request in replay_trace.requests(calls, campaigns, model) for event in request]


# Reading


def test_every_row_of_the_sample_is_read() -> None:
    calls = replay_trace.read_trace(SAMPLE)

    assert len(calls) == 200
    assert [call.number for call in calls] == list(range(200))
    assert calls[0] == (
        0,
        "2023-11-16 18:15:46.6805900,374,44",
        datetime(2023, 11, 16, 18, 15, 46, 680590, UTC),
        374,
        44,
    )


def test_line_endings_and_a_missing_final_one_make_no_difference(tmp_path: Path) -> None:
    lines = SAMPLE.read_text().splitlines()
    unix, unfinished = tmp_path / "unix.csv", tmp_path / "unfinished.csv"
    unix.write_bytes("".join(line + "\n" for line in lines).encode())
    unfinished.write_bytes("\r\n".join(lines).encode())

    assert SAMPLE.read_bytes().count(b"\r\n") == 201
    assert replay_trace.read_trace(unix) == replay_trace.read_trace(unfinished) == replay_trace.read_trace(SAMPLE)


@pytest.mark.parametrize(
    ("fraction", "microsecond"),
    [("", 0), (".5", 500_000), (".0000019", 1), (".9999999", 999_999), (".123456", 123_456)],
)
def test_times_are_truncated_to_microseconds(tmp_path: Path, fraction: str, microsecond: int) -> None:
    (call,) = replay_trace.read_trace(trace_file(tmp_path, f"2023-11-16 18:15:46{fraction},1,1"))

    assert call.occurred_at == datetime(2023, 11, 16, 18, 15, 46, microsecond, UTC)


@pytest.mark.parametrize(
    "row",
    [
        "",
        "2023-11-16 18:15:46.6805900,374",
        "2023-11-16 18:15:46.6805900,374,44,1",
        "2023-11-16 18:15:46.6805900,-1,44",
        "2023-11-16 18:15:46.6805900,1.5,44",
        "2023-11-16 18:15:46.6805900, 1,44",
        "2023-11-16 18:15:46.6805900,1_0,44",
        "2023-11-16 18:15:46.6805900+00:00,1,44",
        "2023-11-31 18:15:46.6805900,1,44",
        "2023-11-16 25:15:46.6805900,1,44",
        "2023-11-16 18:15:46.6805900,\xb9,44",
    ],
)
def test_a_malformed_row_is_named_by_its_line_and_nothing_is_posted(tmp_path: Path, row: str) -> None:
    path = trace_file(tmp_path, "2023-11-16 18:15:46.6805900,374,44", row, "2023-11-16 18:15:47.0000000,1,1")

    result = CliRunner().invoke(replay_trace.main, [str(path), "--url", "http://127.0.0.1:1"])

    assert result.exit_code == 2
    assert "line 3" in result.stderr
    assert "Traceback" not in result.output


def test_another_header_and_an_empty_trace_are_refused(tmp_path: Path) -> None:
    with pytest.raises(replay_trace.TraceError, match="line 1: expected the header"):
        replay_trace.read_trace(trace_file(tmp_path, header="time,in,out"))

    with pytest.raises(replay_trace.TraceError, match="no rows"):
        replay_trace.read_trace(trace_file(tmp_path))


# Events


def test_every_event_is_one_the_catalogue_accepts() -> None:
    events = all_events()

    assert Counter(event["type"] for event in events) == {
        "campaign.created": 10,
        "job.queued": 200,
        "job.started": 200,
        "job.completed": 200,
        "cost.recorded": 200,
    }
    for event in events:
        assert event.keys() == {"type", "id", "stream_id", "occurred_at", "data"}
        CATALOGUE[event["type"]].decoder.decode(json.dumps(event["data"]))


def test_a_call_becomes_a_job_and_its_cost() -> None:
    events = all_events()
    campaign, (queued, started, completed, cost) = events[3], events[10 + 4 * 3 : 10 + 4 * 4]

    assert [queued["type"], started["type"], completed["type"]] == ["job.queued", "job.started", "job.completed"]
    assert queued["stream_id"] == started["stream_id"] == completed["stream_id"] == cost["data"]["agent_job_id"]
    assert cost["stream_id"] == cost["id"]
    assert {event["occurred_at"] for event in (queued, started, completed, cost)} == {"2023-11-16T18:15:51.391017Z"}
    assert queued["data"] == {
        "agent_type": "analyst",
        "input_data": {"context_tokens": 91},
        "campaign_id": campaign["stream_id"],
    }
    assert completed["data"] == {"output_data": {"generated_tokens": 16}}
    assert cost["data"] == {
        "resource_type": "llm_api",
        "model_used": "gpt-4o",
        "provider": "openai",
        "usage": {"input_tokens": 91, "output_tokens": 16},
        "agent_job_id": queued["stream_id"],
    }
    assert campaign["data"]["start_date"] == campaign["occurred_at"] == "2023-11-16T18:15:46.680590Z"


def test_ids_are_unique_and_the_same_on_every_run() -> None:
    events = all_events()

    assert events == all_events()
    assert len({event["id"] for event in events}) == len(events)
    # These ids are stored in ledgers: if they changed, a repeated replay would add every trace again.
    assert events[0]["id"] == "4a19ce6a-6089-56ee-983e-0e13720248a6"
    assert events[10]["stream_id"] == "7d9c45c2-1c32-5167-84fa-899f952d4124"
    assert events[10]["id"] == "1f1c5868-ea1e-51f2-8d6b-f0a632dbaf75"


def test_equal_rows_are_distinct_jobs(tmp_path: Path) -> None:
    row = "2023-11-16 18:15:46.6805900,374,44"
    calls = replay_trace.read_trace(trace_file(tmp_path, row, row))

    events = [event for call in calls for event in replay_trace.job_events(call, "campaign", GPT_4O)]

    assert len({event["id"] for event in events}) == 8


def test_another_model_changes_only_costs_and_another_number_of_campaigns_only_campaigns_and_jobs() -> None:
    events = {event["id"]: event for event in all_events()}
    by_model = {event["id"]: event for event in all_events(model=MINI)}
    by_division = {event["id"]: event for event in all_events(campaigns=7)}

    assert events.keys() == by_model.keys()
    assert {events[id_]["type"] for id_ in events if events[id_] != by_model[id_]} == {"cost.recorded"}
    shared = events.keys() & by_division.keys()
    assert {events[id_]["type"] for id_ in events.keys() - shared} == {"campaign.created"}
    assert {events[id_]["type"] for id_ in shared if events[id_] != by_division[id_]} == {"job.queued"}


def test_the_events_of_a_prefix_are_a_prefix_of_the_events() -> None:
    calls = replay_trace.read_trace(SAMPLE)
    some = [event for request in replay_trace.requests(calls[:50], 10, GPT_4O) for event in request]

    assert all_events()[: len(some)] == some


@pytest.mark.parametrize("campaigns", [1, 10, 100])
def test_requests_are_small_and_keep_a_job_together(campaigns: int) -> None:
    batches = list(replay_trace.requests(replay_trace.read_trace(SAMPLE), campaigns, GPT_4O))

    assert max(map(len, batches)) <= replay_trace.EVENTS_PER_REQUEST_MAX
    assert sum(map(len, batches)) == campaigns + 4 * 200
    assert [event["type"] for event in batches[0][: campaigns + 1]] == ["campaign.created"] * campaigns + ["job.queued"]
    for batch in batches[1:]:
        assert [event["type"] for event in batch[:4]] == ["job.queued", "job.started", "job.completed", "cost.recorded"]
        assert len(batch) % 4 == 0


# Posting


class FakeService:
    """Stores events by identity like the service; each of `faults` makes one request fail."""

    def __init__(self, *faults: str) -> None:
        self.faults = list(faults)
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.keys: set[str | None] = set()
        self.sizes: list[int] = []

    async def append(self, request: web.Request) -> web.Response:
        fault = self.faults.pop(0) if self.faults else ""
        self.keys.add(request.headers.get("Authorization"))
        events = await request.json()
        if fault == "overloaded":
            return web.json_response({"title": "Overloaded"}, status=503, headers={"Retry-After": "0"})
        if fault == "lost":
            return self._disconnect(request)
        for event in events:
            if self.events.get((event["stream_id"], event["id"]), event) != event:
                return self._conflict()
        receipts = [self._receipt(event) for event in events]
        self.sizes.append(len(events))
        if fault == "lost after the commit":
            return self._disconnect(request)
        return web.json_response({"position": len(self.events), "events": receipts}, status=201)

    def _receipt(self, event: dict[str, Any]) -> dict[str, Any]:
        identity = event["stream_id"], event["id"]
        duplicate = identity in self.events
        self.events[identity] = event
        return {"id": event["id"], "stream_id": event["stream_id"], "duplicate": duplicate}

    def _conflict(self) -> web.Response:
        problem = {"type": "/problems/event-id-conflict", "title": "Event id conflict", "detail": "other content"}
        return web.json_response(problem, status=409, content_type="application/problem+json")

    def _disconnect(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_trace, "DELAY_SECONDS_FIRST", 0.001)


@pytest.fixture
async def servers() -> AsyncIterator[list[TestServer]]:
    started: list[TestServer] = []
    yield started
    for server in started:
        await server.close()


async def send(
    service: FakeService, servers: list[TestServer], model: Any = GPT_4O, campaigns: int = 10
) -> Counter[str]:
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/v1/events", service.append)
    server = TestServer(application)
    servers.append(server)
    await server.start_server()
    batches = replay_trace.requests(replay_trace.read_trace(SAMPLE), campaigns, model)
    tally: Counter[str] = await replay_trace.replay(batches, str(server.make_url("/")), "secret", lambda _: None)
    return tally


async def test_a_trace_replayed_twice_is_recorded_once(servers: list[TestServer]) -> None:
    service = FakeService()

    first, second = await send(service, servers), await send(service, servers)

    assert first == {"new": 810, "duplicates": 0}
    assert second == {"new": 0, "duplicates": 810}
    assert len(service.events) == 810
    assert service.keys == {"Bearer secret"}
    assert max(service.sizes) <= 500


@pytest.mark.parametrize("fault", ["overloaded", "lost", "lost after the commit"])
async def test_a_failed_request_is_sent_again(servers: list[TestServer], fault: str) -> None:
    service = FakeService(fault, fault, "", fault)

    tally = await send(service, servers)

    assert tally.total() == 810
    assert [*service.events.values()][:490] == all_events()[:490]
    assert len(service.events) == 810
    assert (tally["duplicates"] > 0) == (fault == "lost after the commit")


async def test_retries_end_after_the_time_limit(servers: list[TestServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_trace, "RETRY_SECONDS_MAX", 0.05)

    with pytest.raises(replay_trace.PostError, match="gave up"):
        await send(FakeService(*["overloaded"] * 1000), servers)


@pytest.mark.parametrize(("model", "campaigns"), [(MINI, 10), (GPT_4O, 7)])
async def test_a_replay_with_other_options_is_refused_with_an_explanation(
    servers: list[TestServer], model: Any, campaigns: int
) -> None:
    service = FakeService()
    await send(service, servers)

    with pytest.raises(replay_trace.PostError, match="another --provider, --model or --campaigns"):
        await send(service, servers, model, campaigns)

    assert len(service.events) == 810


def test_a_url_that_is_not_a_ledger_is_named_in_the_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(replay_trace.main, [str(SAMPLE), "--url", "localhost:8080"])

    assert result.exit_code == 1
    assert "localhost:8080" in result.stderr
