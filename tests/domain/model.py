"""A second, plain implementation of the rules, to compare the ledger with: dictionaries, conditions.

On purpose it uses nothing of `ledger`. The model judges events as they are sent (valid dictionaries with an `id`), so
the same events can be sent to the domain or to a running service and the answers compared.
"""

import copy
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Any, NamedTuple

from tests.domain.contract import NAMES_STREAM, SAME, TRANSITIONS, Event, canonical_id, meaning, plain, stream_of

ENDS = ("job.completed", "job.failed", "job.cancelled")

Stream = dict[str, Any]

EXACT = Context(prec=60)
"""Sums of amounts with 18 decimals have more digits than `Decimal` has by default."""


class Verdict(NamedTuple):
    """The answer for one event: a receipt if `problem` is None, otherwise the slug of the problem and its members.

    `members` are set for `version-conflict` and `budget-exceeded`; `index` is that of the refused event in its request.
    """

    problem: str | None
    version: int | None = None
    position: int | None = None
    duplicate: bool = False
    over_budget: list[str] | None = None
    members: dict[str, Any] | None = None
    index: int | None = None


class Refusal(Exception):
    def __init__(self, problem: str, **members: Any) -> None:
        super().__init__(problem)
        self.problem = problem
        self.members = members or None


class RecordedIdentity(NamedTuple):
    """An event that was accepted."""

    type: str
    data: dict[str, Any]
    envelope: dict[str, Any]
    verdict: Verdict


class Model:
    """The expected state and decisions of the ledger."""

    def __init__(self) -> None:
        self.position = 0
        self.streams: dict[tuple[str, str], Stream] = {}
        self.events: dict[tuple[str, str, str], RecordedIdentity] = {}
        self.denials: set[Any] = set()
        self.occurred_at: datetime | None = None

    def apply(self, event: Event, now: datetime) -> Verdict:
        """Judge one event sent alone.

        Args:
            now: The time at which it is recorded, with time zone.
        """
        return self.apply_independently([event], now)[0]

    def apply_together(self, events: list[Event], now: datetime) -> list[Verdict]:
        """Judge a batch, all or nothing; if it is refused, return only the verdict of the refused event."""
        if len(events) == 1:
            return self.apply_independently(events, now)
        before = self.position, copy.deepcopy(self.streams), dict(self.events)
        verdicts = []
        for index, event in enumerate(events):
            try:
                verdicts.append(self._judge(event, now))
            except Refusal as refusal:
                self.position, self.streams, self.events = before
                return [Verdict(refusal.problem, members=refusal.members, index=index)]
        return verdicts

    def apply_independently(self, events: list[Event], now: datetime) -> list[Verdict]:
        """Judge the events of one request separately. Refused holds are recorded after all events, once."""
        verdicts = []
        denials = set()
        for index, event in enumerate(events):
            try:
                verdicts.append(self._judge(event, now))
            except Refusal as refusal:
                verdicts.append(Verdict(refusal.problem, members=refusal.members, index=index))
                if refusal.problem == "budget-exceeded":
                    denials.add(self._denial(event, refusal))
        self.position += len(denials - self.denials)
        self.denials |= denials
        return verdicts

    def _denial(self, event: Event, refusal: Refusal) -> Any:
        """Return what identifies a denial: what was asked, without ids and texts, and the balances."""
        asked = meaning(event["type"], event["data"])
        asked["campaign_id"], _ = self._counts_for(asked)
        asked |= {"currency": refusal.members["currency"], "description": None}
        taken = [(s["scope"], s["limit"], s["spent"], s["held"]) for s in refusal.members["scopes"]]
        requested = refusal.members["scopes"][0]["requested"]
        asked["usage"] = tuple(sorted((asked.get("usage") or {}).items()))
        return frozenset(asked.items()), tuple(taken), requested

    def expire(self, entry_id: str, now: datetime) -> Verdict:
        """Expire a hold, as the service does."""
        entry = self.streams.get(("cost", canonical_id(entry_id)))
        if entry is None or entry["status"] != "held" or entry["expires_at"] > now:
            return Verdict("illegal-transition", index=0)
        self._free(entry, "expired")
        return Verdict(None, entry["version"], self.position)

    def status(self, category: str, stream_id: str) -> str | None:
        """Return the status of a stream; None if it does not exist."""
        stream = self.streams.get((category, canonical_id(stream_id)))
        return stream["status"] if stream else None

    def version(self, category: str, stream_id: str) -> int:
        """Return the version of a stream; 0 if it does not exist."""
        stream = self.streams.get((category, canonical_id(stream_id)))
        return stream["version"] if stream else 0

    def _judge(self, event: Event, now: datetime) -> Verdict:
        name, stream_id = event["type"], stream_of(event)
        category = name.split(".")[0]
        data = meaning(name, event.get("data") or {})
        named = {field: event[field] for field in ("occurred_at", "correlation_id", "causation_id") if event.get(field)}
        envelope = {field: plain(field, value) for field, value in named.items()}
        identity = category, stream_id, canonical_id(event["id"])

        known = self.events.get(identity)
        if known:
            same = all(known.envelope.get(field) == value for field, value in envelope.items())
            if known.type != name or self._filled(name, known.data) != self._filled(name, data) or not same:
                raise Refusal("event-id-conflict")
            return known.verdict._replace(duplicate=True)

        stream = self.streams.get((category, stream_id))
        version = stream["version"] if stream else 0
        expected = event.get("expected_version")
        if expected is not None and expected != version:
            raise Refusal("version-conflict", expected=expected, actual=version)

        statuses, to = TRANSITIONS[name]
        if (statuses == "") != (stream is None) and not (stream is None and name in NAMES_STREAM):
            raise Refusal("illegal-transition")
        self._refer(name, data)
        if stream and category != "price" and stream["status"] not in statuses.split():
            raise Refusal("illegal-transition")

        self.occurred_at = envelope.get("occurred_at", now)
        stream = dict(stream or {"id": stream_id, "version": 0})
        over = getattr(self, f"_{category}")(name.split(".")[1], data, stream, now)
        stream["version"] += 1
        if to != SAME:
            stream["status"] = data["status"] if name == "job.recorded" else to
        self.streams[category, stream_id] = stream
        self.position += 1
        verdict = Verdict(None, stream["version"], self.position, over_budget=over)
        self.events[identity] = RecordedIdentity(name, data, {"occurred_at": now, **envelope}, verdict)
        if name in ENDS:
            for entry in list(self.streams.values()):
                if entry.get("job") == stream_id and entry["status"] == "held":
                    self._free(entry, "released")
        return verdict

    def _refer(self, name: str, data: dict[str, Any]) -> None:
        """Check that the campaign and job of an event exist, belong together, and use one currency."""
        campaign_id, job_id = data.get("campaign_id"), data.get("agent_job_id")
        if campaign_id and self.status("campaign", campaign_id) in (None, "deleted"):
            raise Refusal("unknown-reference")
        if job_id and self.status("job", job_id) in (None, "deleted"):
            raise Refusal("unknown-reference")
        of_job = self.streams["job", job_id]["campaign"] if job_id else None
        if campaign_id and of_job and campaign_id != of_job:
            raise Refusal("reference-mismatch")
        if parent_id := data.get("parent_job_id"):
            if self.status("job", parent_id) in (None, "deleted"):
                raise Refusal("unknown-reference")
            if campaign_id and campaign_id != self.streams["job", parent_id]["campaign"]:
                raise Refusal("reference-mismatch")
            if len(self._lineage(parent_id)) > 15:
                raise Refusal("invalid-event")
        if name.startswith("cost."):
            scopes = self._scopes(*self._counts_for(data))
            currency = data.get("currency") or (scopes[-1][1]["currency"] if scopes else "USD")
            if any(scope["currency"] != currency for _, scope in scopes):
                raise Refusal("currency-mismatch")

    def _filled(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data of an event with the campaign and the currency that it inherits if it names none."""
        names_of_opening = ("content.created", "job.queued", "job.recorded", "cost.recorded", "cost.reserved")
        if name not in (*names_of_opening, "cost.credited"):
            return data
        job = self.streams.get(("job", data.get("agent_job_id") or data.get("parent_job_id", "")), {})
        campaign_id = data.get("campaign_id") or job.get("campaign")
        campaign = self.streams.get(("campaign", campaign_id or ""), {})
        currency = data.get("currency") or campaign.get("currency") or job.get("currency") or "USD"
        return {**data, "campaign_id": campaign_id, "currency": currency}

    def _counts_for(self, data: dict[str, Any]) -> tuple[str | None, str | None]:
        campaign_id, job_id = data.get("campaign_id"), data.get("agent_job_id") or data.get("parent_job_id")
        if job_id and not campaign_id:
            of_job = self.streams["job", job_id]["campaign"]
            campaign_id = of_job if of_job and self.status("campaign", of_job) != "deleted" else None
        return campaign_id, job_id

    def _scopes(self, campaign_id: str | None, job_id: str | None) -> list[tuple[str, Stream]]:
        """Return the job, the jobs above it and the campaign that money counts for, each with what it is called."""
        lineage = self._lineage(job_id) if job_id else []
        names = ["job", *["ancestor"] * len(lineage)]
        scopes = [(name, self.streams["job", each]) for name, each in zip(names, lineage, strict=False)]
        return [*scopes, ("campaign", self.streams["campaign", campaign_id])] if campaign_id else scopes

    def _lineage(self, job_id: str) -> list[str]:
        """Return a job and all jobs above it."""
        parent_id = self.streams["job", job_id]["parent"]
        return [job_id, *(self._lineage(parent_id) if parent_id else [])]

    def _campaign(self, verb: str, data: dict[str, Any], stream: Stream, now: datetime) -> None:
        if verb == "created":
            stream |= {"category": "campaign", "currency": data["currency"], "start": data["start_date"]}
            stream |= {
                "end": data.get("end_date"),
                "limit": data.get("budget"),
                "spent": Decimal(0),
                "held": Decimal(0),
            }
        elif verb == "details_changed":
            stream["start"] = data.get("start_date", stream["start"])
            stream["end"] = data.get("end_date", stream["end"])
            if stream["end"] and stream["end"] < stream["start"]:
                raise Refusal("invalid-event")
        elif verb == "budget_changed":
            stream["limit"] = data.get("budget", stream["limit"])
        elif verb == "deleted" and (stream["spent"] or stream["held"]):
            raise Refusal("illegal-transition")

    def _content(self, verb: str, data: dict[str, Any], stream: Stream, now: datetime) -> None:
        stream["category"] = "content"

    def _job(self, verb: str, data: dict[str, Any], stream: Stream, now: datetime) -> None:
        if verb in ("queued", "recorded"):
            if verb == "recorded" and data["status"] == "failed" and "error_message" not in data:
                raise Refusal("invalid-event")
            campaign_id, parent_id = self._counts_for(data)
            owner = self.streams.get(("job", parent_id or "")) or self.streams.get(("campaign", campaign_id or ""))
            currency = owner["currency"] if owner else data.get("currency", "USD")
            if data.get("currency", currency) != currency:
                raise Refusal("currency-mismatch")
            if verb == "queued" and parent_id and self.status("job", parent_id) not in ("pending", "running"):
                raise Refusal("illegal-transition")
            if verb == "queued" and campaign_id and self.status("campaign", campaign_id) in ("completed", "archived"):
                raise Refusal("illegal-transition")
            stream |= {"parent": parent_id}
            stream |= {"category": "job", "campaign": campaign_id, "currency": currency, "limit": data.get("budget")}
            stream |= {"spent": Decimal(0), "held": Decimal(0), "entries": 0}
            stream |= {"retries": 0, "max_retries": data.get("max_retries")}
        elif verb == "retried":
            if stream["max_retries"] is not None and stream["retries"] >= stream["max_retries"]:
                raise Refusal("illegal-transition")
            stream["retries"] += 1
        elif verb == "budget_changed":
            stream["limit"] = data.get("budget", stream["limit"])
        elif verb == "deleted" and (stream["entries"] or self._has_children(stream["id"])):
            raise Refusal("illegal-transition")

    def _has_children(self, job_id: str) -> bool:
        streams = self.streams.values()
        return any(stream.get("parent") == job_id and stream["status"] != "deleted" for stream in streams)

    def _cost(self, verb: str, data: dict[str, Any], stream: Stream, now: datetime) -> list[str] | None:
        with localcontext(EXACT):
            return self._exact_cost(verb, data, stream, now)

    def _exact_cost(self, verb: str, data: dict[str, Any], stream: Stream, now: datetime) -> list[str] | None:
        if verb in ("recorded", "reserved", "credited"):
            campaign_id, job_id = self._counts_for(data)
            stream |= {"category": "cost", "campaign": campaign_id, "job": job_id}
            stream |= {"cost": Decimal(0), "held": Decimal(0), "tokens": 0, "expires_at": None}
            stream |= {"is_credit": verb == "credited", "unpriced": False, "price": None}
            stream |= {"provider": data.get("provider"), "model": data.get("model_used")}
            stream |= {"currency": data.get("currency", "USD")}
        before = stream["cost"], stream["held"]
        scopes = self._scopes(stream["campaign"], stream["job"])
        if verb == "adjusted" and stream["unpriced"]:
            raise Refusal("illegal-transition")
        if verb == "reserved":
            self._require_takes_holds(scopes)
        if verb in ("recorded", "reserved", "settled"):
            data = self._priced(data, stream, scopes[0][1]["currency"] if scopes else stream["currency"])
        if verb == "reserved":
            if data["amount"] is None:
                raise Refusal("unpriced")
            self._require_room(data["amount"], scopes)
            stream |= {"held": data["amount"], "expires_at": now + timedelta(seconds=data["expires_in"])}
        elif verb == "adjusted":
            stream["cost"] += data["amount"]
            stream["tokens"] += data.get("tokens_used", 0)
            is_possible = stream["cost"] >= 0 and stream["tokens"] >= 0
            if stream["is_credit"]:
                is_possible = stream["cost"] <= 0 and stream["tokens"] == 0
            if not is_possible:
                raise Refusal("invalid-event")
        elif verb == "extended":
            stream["expires_at"] = now + timedelta(seconds=data["expires_in"])
        elif verb == "credited":
            stream["cost"] = -data["amount"]
        elif verb == "released":
            stream["held"] = Decimal(0)
        elif verb in ("recorded", "settled"):
            counts = [data.get("usage", {}).get(name, ("", 0)) for name in ("input_tokens", "output_tokens")]
            tokens = sum(int(count) for _, count in counts)
            stream |= {"cost": data["cost"] or Decimal(0), "unpriced": data["cost"] is None, "held": Decimal(0)}
            stream |= {"tokens": data.get("tokens_used", tokens)}
        for _, scope in scopes:
            scope["spent"] += stream["cost"] - before[0]
            scope["held"] += stream["held"] - before[1]
            if scope["category"] == "job" and verb in ("recorded", "reserved", "credited"):
                scope["entries"] += 1
        over = [name for name, s in scopes if s["limit"] is not None and s["spent"] + s["held"] > s["limit"]]
        over = list(dict.fromkeys(over))
        return over if over and verb in ("recorded", "settled") else None

    def _price(self, verb: str, data: dict[str, Any], stream: Stream, now: datetime) -> None:
        start, periods = data["effective_from"], stream.get("periods", ())
        if verb == "published":
            stream |= {"category": "price", "key": (data["provider"], data["model"], data.get("currency", "USD"))}
        elif (in_force := self._in_force(stream, start)) is None or in_force["rates"] is None:
            raise Refusal("illegal-transition")
        names = {"names": {stream["key"][1], *data.get("names", ())}, "prefixes": data.get("prefixes", ())}
        rates = {name: Decimal(rate[1]) for name, rate in data["rates"].items()} if verb == "published" else None
        stream["periods"] = (*periods, {"from": start, "position": self.position + 1, "rates": rates, **names})

    def _in_force(self, stream: Stream, at: datetime) -> dict[str, Any] | None:
        """Return what a stream of prices says at a time; a withdrawal is named as the price that it ends."""
        periods = [period for period in stream["periods"] if period["from"] <= at]
        periods.sort(key=lambda period: (period["from"], period["position"]))
        published = [period for period in periods if period["rates"] is not None]
        names = {name: published[-1][name] for name in ("names", "prefixes")} if published else {}
        return {**periods[-1], **names} if periods else None

    def _price_of(self, provider: str, model: str, currency: str, at: datetime) -> dict[str, Any] | None:
        """Search all prices for that of a call: by name, or else by the longest prefix."""
        streams = [stream for stream in self.streams.values() if stream["category"] == "price"]
        keys = [(stream, stream["key"]) for stream in streams]
        of_provider = [stream for stream, key in keys if (key[0], key[2]) == (provider, currency)]
        in_force = [period for stream in of_provider if (period := self._in_force(stream, at))]
        matching = [period for period in in_force if model in period["names"]]
        for length in range(len(model), 0, -1):
            matching = matching or [period for period in in_force if model[:length] in period["prefixes"]]
        found = max(matching, key=lambda period: (period["from"], period["position"]), default=None)
        return found if found and found["rates"] else None

    def _priced(self, data: dict[str, Any], stream: Stream, currency: str) -> dict[str, Any]:
        """Return data with its amount, computed from usage if it has none; None if there is no price."""
        field = "amount" if "expires_in" in data else "cost"
        provider, model = data.get("provider") or stream["provider"], data.get("model_used") or stream["model"]
        stream |= {"provider": provider, "model": model, "price": None}
        if data.get(field) is not None:
            return data
        units = {name: count[1] for name, count in data["usage"].items() if count[1]}
        price = self._price_of(provider, model, currency, self.occurred_at) if provider and model else None
        if price is None or units.keys() - price["rates"].keys():
            return {**data, field: None}
        stream["price"] = price["position"]
        total = sum((price["rates"][name] * count for name, count in units.items()), Decimal(0))
        return {**data, field: (total / 10**6).quantize(Decimal("1e-18"), ROUND_HALF_EVEN).normalize()}

    def _require_takes_holds(self, scopes: list[tuple[str, Stream]]) -> None:
        takes_holds = {"job": ("pending", "running"), "campaign": ("draft", "active")}
        if any(name in takes_holds and scope["status"] not in takes_holds[name] for name, scope in scopes):
            raise Refusal("illegal-transition")

    def _require_room(self, amount: Decimal, scopes: list[tuple[str, Stream]]) -> None:
        """Raise `Refusal` unless all of these allow a hold of this amount."""
        failed = []
        for name, scope in scopes:
            limit, spent, held = scope["limit"], scope["spent"], scope["held"]
            if limit is not None and spent + held + amount > limit:
                amounts = {"limit": limit, "spent": spent, "held": held, "requested": amount}
                amounts["available"] = max(limit - spent - held, Decimal(0))
                shown = {name: f"{value.normalize():f}" for name, value in amounts.items()}
                failed.append(({"scope": name, "id": scope["id"], **shown}, scope["currency"]))
        if failed:
            raise Refusal("budget-exceeded", scopes=[shown for shown, _ in failed], currency=failed[0][1])

    def _free(self, entry: Stream, status: str) -> None:
        """Release or expire a hold, as the service does."""
        with localcontext(EXACT):
            for _, scope in self._scopes(entry["campaign"], entry["job"]):
                scope["held"] -= entry["held"]
        entry |= {"status": status, "held": Decimal(0), "version": entry["version"] + 1}
        self.position += 1
