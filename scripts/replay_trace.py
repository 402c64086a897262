#!/usr/bin/env python
"""Replay a recorded LLM inference trace through the HTTP API: each call becomes a job and its cost.

The trace is `AzureLLMInferenceTrace_conv.csv` of the AzurePublicDataset, CC BY 4.0, with the columns TIMESTAMP (UTC,
without a zone), ContextTokens and GeneratedTokens. Cite: P. Patel, E. Choukse, C. Zhang, A. Shah, Í. Goiri, S. Maleki,
R. Bianchini, "Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024.

A cost is sent as the tokens of the call, without an amount: the ledger prices it by its price book, as of the row's
time. Calls for which it has no price are recorded as unpriced, and reported.
Every id is derived from the row: a second run adds nothing, and the same command completes an interrupted run.
An event whose acknowledgement was lost is sent again, and then counts as a duplicate.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import aiohttp
import click

NAMESPACE = UUID("3d0f5e0c-8a0b-5c1e-9f57-6f1b7a2d4c90")
"""Namespace of all ids. Never change it: a second run must derive the ids of the first."""

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROW = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?,(\d{1,12}),(\d{1,12})", re.ASCII)
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
BUDGET, EVENTS_PER_REQUEST_MAX, REQUESTS_IN_FLIGHT_MAX = "1000000", 500, 4
RETRY_SECONDS_MAX = 120.0  # after which a request is given up: long enough to restart the service
DELAY_SECONDS_FIRST, DELAY_SECONDS_MAX = 0.25, 8.0
CONFLICT = """
The ledger already has this trace with other content: of another --provider, --model or --campaigns, or with costs, as
earlier releases sent. Recorded events do not change. Use the options of the first run, or an empty ledger."""

Event = dict[str, Any]
Batches = Iterator[list[Event]]


class TraceError(click.UsageError):
    """The trace cannot be used; nothing was posted. The exit code is 2."""


class PostError(click.ClickException):
    """The service refused a request or did not answer in time. The exit code is 1."""


class Model(NamedTuple):
    """The model that the calls are charged as."""

    provider: str
    name: str


class Call(NamedTuple):
    """One row: its number from 0, its text without the line ending, and its columns."""

    number: int
    text: str
    occurred_at: datetime
    context_tokens: int
    generated_tokens: int


def read_trace(path: Path) -> list[Call]:
    """Read all calls; lines end in LF or CRLF. A malformed line raises `TraceError`, which names it."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        if (header := file.readline().rstrip("\n")) != HEADER:
            raise TraceError(f"{path}, line 1: expected the header {HEADER}, found {header[:100]!r}")
        calls = [_call(path, number, line.rstrip("\n")) for number, line in enumerate(file)]
    if not calls:
        raise TraceError(f"{path} has no rows below its header")
    return calls


def _call(path: Path, number: int, text: str) -> Call:
    try:
        if not (row := ROW.fullmatch(text)):
            raise ValueError(f"expected {HEADER}")
        second, fraction, context_tokens, generated_tokens = row.groups(default="")
        occurred_at = datetime.fromisoformat(second).replace(microsecond=int(f"{fraction:0<6}"[:6]), tzinfo=UTC)
    except ValueError as error:
        raise TraceError(f"{path}, line {number + 2}: {error}, found {text[:100]!r}") from None
    return Call(number, text, occurred_at, int(context_tokens), int(generated_tokens))


def _campaign_event(first: Call, index: int, campaigns: int) -> Event:
    """Create campaign `index` of a trace that begins with `first`; runs with different models share their campaigns."""
    campaign_id = uuid5(NAMESPACE, f"campaign\n{index}\n{campaigns}\n{first.text}")
    name = f"LLM trace of {first.occurred_at:%Y-%m-%d}, part {index + 1} of {campaigns}"
    data = {"name": name, "budget": BUDGET, "currency": "USD", "start_date": f"{first.occurred_at:{TIME_FORMAT}}"}
    return _event("campaign.created", campaign_id, first, data)


def job_events(call: Call, campaign_id: str, model: Model) -> list[Event]:
    """Create the events of one call, in order: its job queued, started and completed, and its usage.

    Args:
        call: the call; equal rows differ by their number, and give different ids.
        campaign_id: of the campaign that the job belongs to.
        model: the model that it is charged as.

    Returns:
        the four events, as they are posted.
    """
    job_id = uuid5(NAMESPACE, f"job\n{call.number}\n{call.text}")
    context, generated = call.context_tokens, call.generated_tokens
    queued = {"agent_type": "analyst", "input_data": {"context_tokens": context}, "campaign_id": campaign_id}
    usage = {"input_tokens": context, "output_tokens": generated}
    cost = {"resource_type": "llm_api", "model_used": model.name, "provider": model.provider, "usage": usage}
    # A cost opens its own stream, which has the id of the event.
    entry = _event("cost.recorded", job_id, call, cost | {"agent_job_id": str(job_id)})
    return [
        _event("job.queued", job_id, call, queued),
        _event("job.started", job_id, call, {}),
        _event("job.completed", job_id, call, {"output_data": {"generated_tokens": generated}}),
        entry | {"stream_id": entry["id"]},
    ]


def _event(event_type: str, stream_id: UUID, call: Call, data: Event) -> Event:
    head = {"type": event_type, "id": str(uuid5(stream_id, event_type)), "stream_id": str(stream_id)}
    return head | {"occurred_at": f"{call.occurred_at:{TIME_FORMAT}}", "data": data}


def requests(calls: list[Call], campaigns: int, model: Model) -> Batches:
    """Group all events into requests.

    Args:
        calls: the calls of the trace.
        campaigns: the number of campaigns to distribute them over.
        model: the model that the calls are charged as.

    Yields:
        the events of each request, at most `EVENTS_PER_REQUEST_MAX`. The first begins with the campaigns, so that they
        are refused with it. The events of a job are never split over two requests.
    """
    request = [_campaign_event(calls[0], index, campaigns) for index in range(campaigns)]
    campaign_ids = [event["stream_id"] for event in request]
    for call in calls:
        events = job_events(call, campaign_ids[call.number % campaigns], model)
        if len(request) + len(events) > EVENTS_PER_REQUEST_MAX:
            yield request
            request = []
        request += events
    yield request


async def _send(session: aiohttp.ClientSession, method: str, url: str, body: bytes | None = None) -> Any:
    """Send one request, repeat the same bytes until it is answered, and return the JSON of the answer."""
    deadline, delay = 0.0, DELAY_SECONDS_FIRST
    while True:
        try:
            async with session.request(method, url, data=body, allow_redirects=False) as response:
                answer = await response.read()
            if response.status in (200, 201):
                return json.loads(answer)
            problem = _problem(response.status, answer)
            if response.status not in (429, 503):
                raise PostError(problem)
            if (seconds := response.headers.get("Retry-After", "")).isdecimal():
                delay = max(delay, float(seconds))
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            problem = f"no answer from {url}: {str(error) or type(error).__name__}"
        except aiohttp.ClientError as error:
            raise PostError(f"{url}: {error}") from None
        except ValueError:
            raise PostError(f"the answer is not that of a ledger: {answer[:200]!r}") from None
        deadline = deadline or time.monotonic() + RETRY_SECONDS_MAX
        pause = delay * random.uniform(1, 1.5)  # noqa: S311 (jitter, not a secret)
        if time.monotonic() + pause > deadline:
            raise PostError(f"gave up after {RETRY_SECONDS_MAX:.0f} s of retries: {problem}")
        await asyncio.sleep(pause)
        delay = min(2 * delay, DELAY_SECONDS_MAX)


async def _post(session: aiohttp.ClientSession, url: str, events: list[Event]) -> Counter[str]:
    """Post one request, and count its receipts."""
    answer = await _send(session, "POST", url, json.dumps(events, separators=(",", ":")).encode())
    try:
        receipts = {receipt["id"]: receipt["duplicate"] for receipt in answer["events"]}
        if receipts.keys() != {event["id"] for event in events}:
            raise ValueError("receipts for other events")
    except (ValueError, TypeError, KeyError):
        raise PostError(f"the answer is not that of a ledger: {str(answer)[:200]}") from None
    return Counter("duplicates" if duplicate else "new" for duplicate in receipts.values())


def _problem(status: int, answer: bytes) -> str:
    try:
        problem = json.loads(answer)
        conflict = CONFLICT if str(problem["type"]).endswith("/event-id-conflict") else ""
        return f"{problem['title']}: {problem['detail']}{conflict}"
    except (ValueError, TypeError, KeyError):
        return f"HTTP status {status}: {answer[:200].decode(errors='replace')}"


async def replay(batches: Batches, url: str, key: str | None, advance: Callable[[int], object]) -> Counter[str]:
    """Post all requests: the first alone, since it creates the campaigns, then several in parallel.

    Args:
        batches: the events of each request.
        url: of the ledger.
        key: the API key; None if the ledger needs none.
        advance: called with the number of events acknowledged, after each request.

    Returns:
        the number of events that were `new` and that were `duplicates`.

    Raises:
        PostError: a request was refused or not acknowledged in time.
    """
    tally: Counter[str] = Counter(new=0, duplicates=0)
    async with _session(key) as session:

        async def work(share: Iterable[list[Event]]) -> None:
            for events in share:
                tally.update(await _post(session, url.rstrip("/") + "/v1/events", events))
                advance(len(events))

        await work([next(batches)])
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(REQUESTS_IN_FLIGHT_MAX):
                    workers.create_task(work(batches))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
    return tally


def _session(key: str | None) -> aiohttp.ClientSession:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=60))


async def read_spend(url: str, key: str | None) -> list[dict[str, Any]]:
    """Return what the ledger charged for each campaign, once its tables have all events."""
    async with _session(key) as session:
        read_models = await _send(session, "GET", f"{url.rstrip('/')}/v1/projections")
        parameters = f"group_by=campaign_id&min_position={read_models['items'][0]['head']}"
        return list((await _send(session, "GET", f"{url.rstrip('/')}/v1/spend?{parameters}"))["items"])


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: scripts/replay_trace.py tests/data/azure_llm_trace_conv_2023_sample.csv --model gpt-4o",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--campaigns", type=click.IntRange(1, 100), default=10, show_default=True, help="Number of campaigns.")
@click.option("--model", default="gpt-4o", show_default=True, help="Charge the prices of this model.")
@click.option("--provider", default="openai", show_default=True, help="Charge the prices of this provider.")
@click.option(
    "--url",
    envvar="LEDGER_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="The ledger.",
)
@click.option("--key", envvar="LEDGER_KEY", show_envvar=True, help="Use this API key, of role manager or admin.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def main(file: Path, campaigns: int, model: str, provider: str, url: str, key: str | None, as_json: bool) -> None:
    """Replay the LLM inference trace in FILE through the HTTP API.

    Each call becomes a job and its cost. Safe to repeat: events that are already in the ledger are not added again.
    """
    started = time.monotonic()
    calls = read_trace(file)
    bar = click.progressbar(length=campaigns + 4 * len(calls), label="Replaying", file=sys.stderr)
    with bar if sys.stderr.isatty() else nullcontext() as visible_bar:
        batches = requests(calls, campaigns, Model(provider, model))
        tally = asyncio.run(replay(batches, url, key, visible_bar.update if visible_bar else lambda _: None))
    ids = {_campaign_event(calls[0], index, campaigns)["stream_id"] for index in range(campaigns)}
    sums = [item for item in asyncio.run(read_spend(url, key)) if item["campaign_id"] in ids]
    cost, unpriced = f"{sum(Decimal(item['cost']) for item in sums):f}", sum(item["unpriced"] for item in sums)
    seconds, sent = round(time.monotonic() - started, 3), tally.total()
    if as_json:
        summary = {"jobs": len(calls), "campaigns": campaigns, "model": model, "events_sent": sent, **tally}
        click.echo(json.dumps(summary | {"cost": cost, "currency": "USD", "unpriced": unpriced, "seconds": seconds}))
        return
    click.echo(f"Replayed {len(calls):,} calls as jobs of {campaigns} campaigns, priced as {model} of {provider}.")
    click.echo(f"{sent:,} events sent: {tally['new']:,} new, {tally['duplicates']:,} already in the ledger.")
    click.echo(f"Total cost: {cost} USD. Duration: {seconds:,.3f} s.")
    if unpriced:
        click.echo(
            f"{unpriced:,} calls are unpriced, and count as 0: the ledger has no price of {model} of {provider}."
        )


if __name__ == "__main__":
    main()
