"""`MemoryLedger`: the domain without a database, with real decoding and judgement; helpers to send."""

import copy
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from ledger.domain.catalogue import CATALOGUE
from ledger.domain.codec import EventData, dump
from ledger.domain.errors import Refused
from ledger.domain.event import Candidate, Receipt, Recorded, Request
from ledger.domain.event_type import OlderVersion, Upcaster
from ledger.domain.judge import judge
from ledger.domain.price import price_stream
from ledger.domain.price_book import PriceBook
from ledger.domain.service_events import hold_expiry
from ledger.domain.working_state import Account, WorkingState
from ledger.log.prepare import prepare
from tests.domain.contract import NAMES_STREAM, TRANSITIONS
from tests.events import campaign, content, event, follow, job, price, reserve

GOLDEN = Path(__file__).parent / "golden"

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)

Sent = dict[str, Any]
"""An event as sent."""


def read(event_type: str, data: Any) -> EventData:
    """Decode the data of a client; `data` is JSON bytes, or a value that is written as JSON first."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return CATALOGUE[event_type].decoder.decode(raw)


def written(event_type: str, data: Any) -> tuple[str, str | None]:
    """Return the canonical data and free text of the data of a client."""
    stored, text = dump(read(event_type, data))
    return stored.decode(), text.decode() if text is not None else None


def candidate(sent: Sent) -> Candidate:
    """Make a candidate of an event as sent.

    Raises:
        msgspec.ValidationError: The data does not match the type.
    """
    ids = {name: UUID(sent[name]) for name in ("stream_id", "correlation_id", "causation_id") if sent.get(name)}
    occurred_at = sent.get("occurred_at")
    return prepare(
        CATALOGUE[sent["type"]],
        read(sent["type"], sent.get("data", {})),
        actor="local",
        event_id=UUID(sent["id"]),
        expected_version=sent.get("expected_version"),
        occurred_at=datetime.fromisoformat(occurred_at) if occurred_at else None,
        **ids,
    )


def upgrade(monkeypatch: pytest.MonkeyPatch, name: str, payload: type[EventData], *upcasters: Upcaster) -> None:
    """Simulate a newer release: an event type with another struct, and an upcaster for each older version."""
    older = tuple(OlderVersion(CATALOGUE[name].payload, upcaster) for upcaster in upcasters)
    upgraded = dataclasses.replace(CATALOGUE[name], payload=payload, older=older)
    monkeypatch.setitem(CATALOGUE, name, upgraded)


def stream_of(sent: Sent) -> UUID:
    """Return the stream of an event."""
    if sent["type"] == "price.published":
        return price_stream(sent["data"]["provider"], sent["data"]["model"], None, None)
    return UUID(sent.get("stream_id") or sent["id"])


def prices_of(book: PriceBook) -> list[tuple[Any, ...]]:
    """Return what a price book says, without what it prepared for computing costs."""
    return [(each.order, each.stream_id, each.key, each.price) for each in book.values()]


class MemoryLedger:
    """Judges requests one after the other; its clock moves only with `pass_seconds`."""

    def __init__(self) -> None:
        self.working_state = WorkingState(0, NOW)

    def send(self, sent: Sent) -> Receipt | Refused:
        """Judge one event and return the verdict."""
        return judge(self.working_state, Request([candidate(sent)]))[0]

    def accept(self, *events: Sent) -> Receipt:
        """Judge events one by one, which must all be accepted; return the receipt of the last."""
        for sent in events:
            verdict = self.send(sent)
            assert isinstance(verdict, Receipt), f"{sent['type']} was refused: {verdict}"
        return verdict

    def refuse(self, sent: Sent) -> Refused:
        """Judge an event that must be refused; return the refusal."""
        verdict = self.send(sent)
        assert isinstance(verdict, Refused), f"{sent['type']} was accepted"
        return verdict

    def batch(self, *events: Sent) -> list[Receipt | Refused]:
        """Judge events together, all or nothing."""
        return judge(self.working_state, Request([candidate(sent) for sent in events]))

    def independent(self, *events: Sent) -> list[Receipt | Refused]:
        """Judge events of one request separately."""
        return judge(self.working_state, Request([candidate(sent) for sent in events], independent=True))

    def expire(self, reserved: Sent) -> Receipt | Refused:
        """Expire a hold, as the sweeper does."""
        return judge(self.working_state, Request([hold_expiry(stream_of(reserved), uuid4())], independent=True))[0]

    def pass_seconds(self, seconds: float) -> None:
        """Move the clock forward."""
        self.working_state.recorded_at += timedelta(seconds=seconds)

    def account(self, sent: Sent) -> Account:
        """Return the account of a campaign or job."""
        return self.working_state.accounts[sent["type"].split(".")[0], stream_of(sent)]

    def balances(self, sent: Sent) -> tuple[Decimal, Decimal]:
        """Return what is spent and held on a campaign or job."""
        account = self.account(sent)
        return account.spent, account.held

    def status(self, sent: Sent) -> str:
        """Return the status of the stream of an event."""
        if sent["type"].startswith("cost."):
            return self.working_state.entries[stream_of(sent)].status
        return self.working_state.heads[sent["type"].split(".")[0], stream_of(sent)].state.status

    @property
    def last(self) -> Recorded:
        """The event recorded last."""
        return self.working_state.events[-1]

    def snapshot(self) -> dict[str, Any]:
        """Copy everything in the working state, to compare it later."""
        # Denials are compared without their copies; what comparing retries costs is no state.
        ignored = ("denials", "comparison_cost", "_comparison_cost_left")
        copied = copy.deepcopy({name: value for name, value in vars(self.working_state).items() if name not in ignored})
        return {**copied, "denials": dict(self.working_state.denials)}


FIRST = {"campaign": campaign, "content": content, "job": job, "cost": reserve, "price": price}

PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "campaign": {
        "draft": (),
        "active": ("activated",),
        "paused": ("activated", "paused"),
        "completed": ("activated", "completed"),
        "archived": ("archived",),
        "deleted": ("deleted",),
    },
    "content": {
        "draft": (),
        "review": ("submitted",),
        "approved": ("submitted", "approved"),
        "published": ("submitted", "approved", "published"),
        "archived": ("archived",),
        "deleted": ("deleted",),
    },
    "job": {
        "pending": (),
        "running": ("started",),
        "completed": ("started", "completed"),
        "failed": ("failed",),
        "cancelled": ("cancelled",),
        "deleted": ("cancelled", "deleted"),
    },
    "price": {"published": (), "withdrawn": ("withdrawn",)},
    "cost": {"held": (), "settled": ("settled",), "released": ("released",), "expired": ("expired",)},
}
"""The events that lead from a new stream to each status."""

SAMPLES: dict[str, Sent] = {
    "campaign.created": {"name": "A campaign", "budget": "100", "start_date": "2025-01-01"},
    "campaign.budget_changed": {},
    "content.created": {"title": "A title", "content": "Text", "content_type": "blog"},
    "content.assigned": {"campaign_id": None},
    "job.queued": {"agent_type": "analyst", "input_data": {}},
    "job.failed": {"error_message": "it broke"},
    "cost.recorded": {"resource_type": "llm_api", "cost": "1"},
    "cost.reserved": {"resource_type": "llm_api", "amount": "1"},
    "cost.credited": {"resource_type": "llm_api", "amount": "1", "reason": "a refund"},
    "cost.extended": {"expires_in": 900},
    "cost.settled": {"cost": "1"},
    "cost.adjusted": {"amount": "1", "reason": "a correction"},
}
"""Required fields with values that tests rely on."""


def required_data(name: str) -> Sent:
    """Return the required fields of an event type with the values of its first golden event."""
    path = GOLDEN / f"{name}.v{CATALOGUE[name].schema_version}.json"
    if not path.exists():
        # A test of the golden files reports it.
        return {}
    golden = json.loads(path.read_text())[0]
    data = {**json.loads(golden["data"]), **json.loads(golden["text"] or "{}")}
    return {field.name: data[field.name] for field in msgspec.structs.fields(CATALOGUE[name].payload) if field.required}


DATA: dict[str, Sent] = {name: {**required_data(name), **SAMPLES.get(name, {})} for name in CATALOGUE}
"""The required fields of every event type, as a client sends them."""


def later(opened: Sent, verb: str, /, **data: Any) -> Sent:
    """Make a later event of the stream that `opened` starts, such as `later(job, "started")`."""
    event_type = f"{opened['type'].split('.')[0]}.{verb}"
    if event_type in NAMES_STREAM:
        key = {name: opened["data"][name] for name in ("provider", "model")}
        return event(event_type, {**DATA[event_type], **data, **key})
    return follow(opened, event_type, {**DATA[event_type], **data})


def stream_in(ledger: MemoryLedger, noun: str, status: str | None, /, **data: Any) -> Sent:
    """Bring a new stream into a status.

    Args:
        ledger: The ledger.
        noun: The category of the stream.
        status: The status; None for a stream that does not exist.
        data: Data of the first event.

    Returns:
        The first event of the stream.
    """
    opened = FIRST[noun](**data)
    if status is None:
        return opened
    ledger.accept(opened)
    for verb in PATHS[noun][status]:
        if verb == "expired":
            ledger.pass_seconds(900)
            assert isinstance(ledger.expire(opened), Receipt)
        else:
            ledger.accept(later(opened, verb))
    return opened


def events_of_type(name: str) -> list[Sent]:
    """Make events of a new stream that lead to one event of this type, which is the last."""
    noun, verb = name.split(".")
    opened = FIRST[noun]()
    allowed_from = TRANSITIONS[name][0].split()
    if not allowed_from or name in NAMES_STREAM:
        return [{**opened, "type": name, "data": DATA[name]}]
    return [opened, *(later(opened, step) for step in PATHS[noun][allowed_from[0]]), later(opened, verb)]


def unknown() -> str:
    """Return an id that nothing has."""
    return str(uuid4())


def shape_error(event_type: str, data: Any) -> str:
    """Return the message with which invalid data is refused."""
    try:
        read(event_type, data)
    except msgspec.ValidationError as error:
        return str(error)
    raise AssertionError(f"{event_type} was decoded although it is invalid: {data!r:.200}")
