"""Events drawn by hypothesis so that they interact: few streams, few amounts, mostly allowed."""

import copy
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from tests.domain.contract import CONTRACT, TRANSITIONS, Event, price_stream_of, stream_of
from tests.domain.helpers import DATA
from tests.domain.model import EXACT, Model

NOUNS = {"cost": 7, "job": 3, "campaign": 2, "content": 2, "price": 2}
"""What the events are about, with how often."""

WEIGHTED_NOUNS = [noun for noun, weight in NOUNS.items() for _ in range(weight)]
LIMITS = ["0", "3", "5.5", "10", "1e2", "9999999999.999999999999999999"]
AMOUNTS = ["0.000000000000000001", "1", "1.0", 2, 2.5, "3", "5.5", "1e1", "9000000000"]
COSTS = ["0", "0.00", *AMOUNTS]
MODELS = ["a", "ab", "b"]
RATES = ["0", "0.000000000000000001", "1", "2.5"]
UNITS = [0, 1, 1_000_000]
TIMES = ["2025-01-01T12:00:00Z", "2024-12-31T23:30:00.5+01:00"]
SMALLEST = Decimal("0.000000000000000001")
UNKNOWN = str(UUID(int=1))
RECENT = 4
"""The number of streams of a noun that are used at the same time."""

OFTEN = 3
"""The weight of likely choices against unlikely ones."""

ENDED = ("deleted", "archived", "cancelled")
RARE = (
    "campaign.details_changed",
    "campaign.metrics_recorded",
    "content.assigned",
    "content.rejected",
    "content.revised",
    "cost.credited",
    "cost.extended",
    "cost.recorded",
    "job.progressed",
    "job.recorded",
)


def sometimes(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.none() | value


class Drawer:
    """Draws events that a client might send to a ledger in the state of the model."""

    def __init__(self, draw: Any, streams: dict[str, list[str]], model: Model, new_id: Any) -> None:
        self.draw = draw
        self.streams = streams
        self.model = model
        self.new_id = new_id

    def event(self) -> Event:
        """Draw an event of any type."""
        noun = self.draw(st.sampled_from(WEIGHTED_NOUNS))
        if noun == "price":
            return self._price_event()
        recent = self.streams[noun][-RECENT:]
        live = [stream_id for stream_id in recent if self.model.status(noun, stream_id) not in (*ENDED, "settled")]
        stream_id = self.draw(st.sampled_from([*live * OFTEN, *recent[-1:], None, None]))
        event_id = self.new_id()
        if stream_id is None:
            stream_id = event_id if self.draw(st.booleans()) else self.new_id()
            self.streams[noun].append(stream_id)
        name = self._type(noun, stream_id)
        event = {"type": name, "id": event_id, "data": self.data(name)}
        if stream_id != event_id:
            event["stream_id"] = stream_id
        return {**event, **self._envelope(noun, stream_id)}

    def _price_event(self) -> Event:
        name = self.draw(st.sampled_from(["price.published", "price.published", "price.withdrawn"]))
        data = self.data(name)
        known = self.streams["price"][-RECENT:]
        stream_id = price_stream_of(data) if "model" in data else self.draw(st.sampled_from(known or [UNKNOWN]))
        if stream_id not in self.streams["price"] and stream_id != UNKNOWN:
            self.streams["price"].append(stream_id)
        event = {"type": name, "id": self.new_id(), "stream_id": stream_id, "data": data}
        return {**event, **self._envelope("price", stream_id)}

    def events(self, count: int, now: Any) -> list[Event]:
        """Draw the events of one request, each as if those before it had been recorded."""
        ahead = copy.deepcopy(self.model)
        drawer = Drawer(self.draw, self.streams, ahead, self.new_id)
        events = []
        for _ in range(count):
            events.append(drawer.event())
            ahead.apply(events[-1], now)
        return events

    def changed(self, event: Event) -> Event:
        """Return an event that was sent before, unchanged or with a small change."""
        change = self.draw(
            st.sampled_from(["nothing", "version", "data", "spelling", "envelope", "forgotten", "stream", "type"])
        )
        noun = event["type"].split(".")[0]
        if noun == "price" and change in ("data", "spelling", "stream", "type"):
            # The data decides the stream.
            return {**self._price_event(), "id": event["id"]}
        if change == "version":
            return {**event, "expected_version": self.draw(st.integers(0, 3))}
        if change == "data":
            return {**event, "data": self.data(event["type"])}
        if change == "spelling":
            return {**event, "data": self._respelt(event["type"], event["data"])}
        if change == "envelope":
            return {**event, **self._envelope(noun, stream_of(event))}
        if change == "forgotten":
            return {field: value for field, value in event.items() if field in ("type", "id", "stream_id", "data")}
        if change == "stream" and self.streams[noun]:
            return {**event, "stream_id": self.draw(st.sampled_from(self.streams[noun][-RECENT:]))}
        if change == "type":
            name = self._type(noun, stream_of(event))
            return {**event, "type": name, "data": self.data(name)}
        return event

    def data(self, name: str) -> dict[str, Any]:
        """Draw valid data for an event type."""
        return {**DATA[name], **getattr(self, f"_{name.split('.')[0]}")(name)}

    def _respelt(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Return data that names what it may have inherited, or no longer names it."""
        optional = CONTRACT[name].optional.split()
        job = self.model.streams.get(("job", data.get("agent_job_id") or ""), {})
        inherited = {"campaign_id": job.get("campaign"), "currency": job.get("currency", "USD")}
        fields = [field for field in inherited if field in optional]
        if not fields:
            return data
        field = self.draw(st.sampled_from(fields))
        if data.get(field):
            return {name: value for name, value in data.items() if name != field}
        is_possible = "agent_job_id" in data and inherited[field]
        return {**data, field: inherited[field]} if is_possible else data

    def _type(self, noun: str, stream_id: str) -> str:
        """Draw an event type: mostly one that the status allows, less often one that ends the stream."""
        status = self.model.status(noun, stream_id)
        of_noun = [name for name in TRANSITIONS if name.startswith(f"{noun}.")]
        possible = [name for name in of_noun if status in (TRANSITIONS[name][0].split() or [None])]
        if not possible or self._is_rare():
            return self.draw(st.sampled_from(of_noun))
        continuing = [name for name in possible if TRANSITIONS[name][1] not in ENDED and name not in RARE]
        return self.draw(st.sampled_from(continuing * OFTEN + possible))

    def _envelope(self, noun: str, stream_id: str) -> dict[str, Any]:
        version = self.model.version(noun, stream_id)
        times = st.sampled_from(TIMES)
        versions = st.sampled_from([version + 1, 0]) if self._is_rare() else sometimes(st.just(version))
        envelope = {
            "expected_version": self.draw(versions),
            "occurred_at": self.draw(sometimes(times)),
            "correlation_id": self.draw(sometimes(st.just(UNKNOWN))),
            "causation_id": self.draw(sometimes(st.just(UNKNOWN.upper()))),
        }
        return {field: value for field, value in envelope.items() if value is not None}

    def _is_rare(self) -> bool:
        return self.draw(st.integers(0, 15)) == 15

    def _one_of(self, noun: str) -> st.SearchStrategy[Any]:
        """Draw a stream to reference, mostly one that exists."""
        recent = self.streams[noun][-RECENT:]
        existing = [stream_id for stream_id in recent if self.model.status(noun, stream_id) not in (None, "deleted")]
        return st.sampled_from([*recent, UNKNOWN] if self._is_rare() else [*existing * 2, None])

    def _some(self, **fields: st.SearchStrategy[Any]) -> dict[str, Any]:
        drawn = {field: self.draw(strategy) for field, strategy in fields.items()}
        return {field: value for field, value in drawn.items() if value is not None}

    def _reason(self, name: str) -> dict[str, Any]:
        """Draw a reason, sometimes, if the event type has this field."""
        has_reason = "reason" in CONTRACT[name].optional.split()
        return self._some(reason=sometimes(st.just("a reason"))) if has_reason else {}

    def _campaign(self, name: str) -> dict[str, Any]:
        if name == "campaign.created":
            currency = self._some(currency=sometimes(st.sampled_from(["USD", "EUR"])))
            return {"budget": self.draw(st.sampled_from([*LIMITS, None])), **currency}
        if name == "campaign.budget_changed":
            return self._budget_change()
        if name == "campaign.details_changed":
            days = sometimes(st.sampled_from(["2024-01-01", "2025-01-01T00:00:00+01:00", "2026-01-01"]))
            return self._some(start_date=days, end_date=days)
        if name == "campaign.metrics_recorded":
            return self._some(clicks=sometimes(st.integers(0, 5)), revenue=sometimes(st.sampled_from(COSTS)))
        return self._reason(name)

    def _content(self, name: str) -> dict[str, Any]:
        if name == "content.created":
            return self._some(campaign_id=self._one_of("campaign"), agent_job_id=self._one_of("job"))
        if name == "content.assigned":
            return {"campaign_id": self.draw(self._one_of("campaign"))}
        if name == "content.revised":
            return self._some(metadata=sometimes(st.sampled_from([{}, {"a": 1}, {"a": 1.0}])))
        return self._reason(name)

    def _job(self, name: str) -> dict[str, Any]:
        if name in ("job.queued", "job.recorded"):
            parent = self._some(parent_job_id=self._one_of("job")) if self.draw(st.booleans()) else {}
            queued = self._some(
                campaign_id=st.none() if parent and not self._is_rare() else self._one_of("campaign"),
                budget=sometimes(st.sampled_from(LIMITS)),
                max_retries=sometimes(st.integers(0, 2)),
            )
            currency = self._some(currency=sometimes(st.sampled_from(["USD", "EUR"])))
            ended = self._ended() if name == "job.recorded" else {}
            return {**queued, **parent, **ended, **({} if "campaign_id" in queued else currency)}
        if name == "job.budget_changed":
            return self._budget_change()
        if name == "job.progressed":
            return self._some(progress=sometimes(st.sampled_from(["0", "0.5", 1])))
        return self._reason(name)

    def _budget_change(self) -> dict[str, Any]:
        return self.draw(st.sampled_from([{}, {"budget": None}, *({"budget": limit} for limit in LIMITS)]))

    def _ended(self) -> dict[str, Any]:
        """Draw how a job ended that ran elsewhere."""
        status = self.draw(st.sampled_from(["completed", "failed", "cancelled"]))
        message = {"error_message": "it broke"} if status == "failed" and not self._is_rare() else {}
        return {"status": status, **message}

    def _cost(self, name: str) -> dict[str, Any]:
        tokens = sometimes(st.integers(0, 5))
        if name == "cost.settled":
            return {**self._cost_or_usage("cost", COSTS), **self._some(tokens_used=tokens)}
        if name == "cost.adjusted":
            amounts = st.sampled_from([*COSTS, "-1", -2.5, "-0.000000000000000001"])
            return self._some(amount=amounts, tokens_used=sometimes(st.integers(-3, 3)))
        if name == "cost.extended":
            return self._some(expires_in=st.sampled_from([1, 900]))
        if name not in ("cost.recorded", "cost.reserved", "cost.credited"):
            return self._reason(name)
        named = self._some(
            campaign_id=self._one_of("campaign"),
            agent_job_id=self._one_of("job") | st.just(UNKNOWN)
            if self.draw(st.integers(0, 9)) == 9
            else self._one_of("job"),
            currency=st.sampled_from(["USD", "EUR"]) if self._is_rare() else st.none(),
        )
        if name == "cost.recorded":
            return {**named, **self._cost_or_usage("cost", COSTS), **self._some(tokens_used=tokens)}
        if name == "cost.credited":
            return {**named, **self._some(amount=st.sampled_from(AMOUNTS))}
        likely = self._edge_amounts(named) or AMOUNTS
        amount = self._cost_or_usage("amount", self.draw(st.sampled_from([likely, AMOUNTS])))
        return {**named, **amount, **self._some(expires_in=sometimes(st.sampled_from([1, 900])))}

    def _cost_or_usage(self, field: str, amounts: list[Any]) -> dict[str, Any]:
        """Draw an amount, or a call that the service prices. A settlement may leave provider and model to its hold."""
        if self.draw(st.integers(0, 2)):
            return {field: self.draw(st.sampled_from(amounts))}
        # A hold of no units is refused.
        units = UNITS if field == "cost" else UNITS[1:]
        usage = {"input_tokens": self.draw(st.sampled_from(units)), **self._some(output_tokens=self._rarely(UNITS))}
        is_named = field == "amount" or self.draw(st.booleans())
        named = {"provider": "p", "model_used": self.draw(st.sampled_from([*MODELS, "abc"]))} if is_named else {}
        return {field: None, "usage": usage, **named}

    def _rarely(self, values: list[Any]) -> st.SearchStrategy[Any]:
        return st.sampled_from([*values, *[None] * 3 * len(values)])

    def _price(self, name: str) -> dict[str, Any]:
        times = st.sampled_from([*TIMES, "2025-01-01T12:01:00Z"])
        if name == "price.withdrawn":
            return {"effective_from": self.draw(times), **self._reason(name)}
        rates = {"input_tokens": self.draw(st.sampled_from(RATES))}
        return {
            "provider": "p",
            "model": self.draw(st.sampled_from(MODELS)),
            "rates": {**rates, **self._some(output_tokens=self._rarely(RATES))},
            "effective_from": self.draw(times),
            "source": {"name": "test", "version": "1"},
            **self._some(
                names=self._rarely([["b"], ["c", "abc"]]),
                prefixes=self._rarely([["a"], ["ab", "b"]]),
                currency=self._rarely(["EUR"]),
            ),
        }

    def _edge_amounts(self, named: dict[str, Any]) -> list[str]:
        """Return amounts that just fit, or just exceed, the budgets of the campaign and job that are named."""
        amounts = []
        for noun, field in (("campaign", "campaign_id"), ("job", "agent_job_id")):
            stream = self.model.streams.get((noun, named.get(field, "")))
            if stream and stream["limit"] is not None:
                unspent = EXACT.subtract(stream["limit"], stream["spent"])
                free = EXACT.subtract(unspent, stream["held"])
                amounts += [free, EXACT.add(free, SMALLEST), unspent, EXACT.divide(unspent, Decimal(2))]
        return [f"{amount:f}" for amount in amounts if 0 < amount < 10**10 and amount.as_tuple().exponent >= -18]
