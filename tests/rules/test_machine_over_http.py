"""A state machine over HTTP: the service decides like the model, for any sequence of requests.

The machine of tests/domain, with requests to a real service on a new database for each example.
LEDGER_TEST_EXAMPLES multiplies the number of examples; 1, the default, runs about 600 steps in ten seconds.
"""

import itertools
import json
import os
from datetime import datetime, timedelta
from decimal import Decimal
from functools import reduce
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy import URL

from tests.domain.auditor import Auditor
from tests.domain.contract import TRANSITIONS, Event, canonical_id, stream_of
from tests.domain.machine import LedgerMachine
from tests.domain.model import EXACT, Model, Verdict
from tests.rules.threaded_service import Run, Service, loop_in_a_thread

EXAMPLES = int(os.environ.get("LEDGER_TEST_EXAMPLES", "1"))
SETTINGS = settings(
    max_examples=12 * EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

EVERYTHING = None

Rows = dict[str, dict[str, Any]]


def with_stream_id(event: Event) -> Event:
    """Return the event with a stream_id, which only events that open a stream may omit."""
    return event if TRANSITIONS[event["type"]][0] == "" else {"stream_id": event["id"], **event}


def as_verdict(answer: dict[str, Any], index: int) -> Verdict:
    """Convert a receipt or a problem document to a verdict of the model."""
    if "type" not in answer:
        return Verdict(None, answer["version"], answer["position"], answer["duplicate"], answer.get("over_budget"))
    slug = answer["type"].removeprefix("/problems/")
    names = {"budget-exceeded": ("scopes", "currency"), "version-conflict": ("expected", "actual")}.get(slug, ())
    return Verdict(slug, members={name: answer[name] for name in names} or None, index=index)


def shown(value: Any) -> Any:
    """Return a value of the model as the API shows it."""
    if isinstance(value, Decimal):
        return f"{EXACT.plus(EXACT.normalize(value)):f}"
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z") if isinstance(value, datetime) else value


def difference(limit: Decimal | None, *amounts: Decimal) -> Decimal | None:
    """Subtract amounts from a limit, exactly; None if there is no limit."""
    return None if limit is None else reduce(EXACT.subtract, amounts, limit)


def rows_of(model: Model) -> dict[str, Rows]:
    """Return the expected rows of the read models by path: those of streams that are not deleted."""
    rows: dict[str, Rows] = {"campaigns": {}, "content-assets": {}, "agent-jobs": {}, "budget-entries": {}}
    paths = dict(zip(("campaign", "content", "job", "cost"), rows, strict=True))
    tokens = {stream["id"]: 0 for stream in model.streams.values()}
    for stream in model.streams.values():
        row = {"status": stream["status"]}
        owner = stream.get("campaign")
        if stream["category"] == "campaign":
            row |= {"budget": stream["limit"], "spend": stream["spent"], "currency": stream["currency"]}
            row |= {"start_date": stream["start"], "end_date": stream["end"], "held": stream["held"]}
            row |= {"budget_remaining": difference(stream["limit"], stream["spent"])}
        elif stream["category"] == "job":
            owner = None if owner and model.status("campaign", owner) == "deleted" else owner
            row |= {"budget": stream["limit"], "tree_cost": stream["spent"], "currency": stream["currency"]}
            row |= {"retry_count": stream["retries"], "campaign_id": owner, "parent_job_id": stream["parent"]}
            own = [entry for entry in model.streams.values() if entry.get("job") == stream["id"]]
            row |= {name: sum((entry[name] for entry in own), Decimal(0)) for name in ("cost", "held")}
        elif stream["category"] == "cost":
            owner = None if owner and model.status("campaign", owner) == "deleted" else owner
            row |= {"cost": stream["cost"], "held": stream["held"], "tokens_used": stream["tokens"]}
            row |= {"campaign_id": owner, "agent_job_id": stream["job"], "expires_at": stream["expires_at"]}
            row |= {"unpriced": stream["unpriced"], "price_position": stream["price"]}
            if stream["job"]:
                tokens[stream["job"]] += stream["tokens"]
        if stream["status"] != "deleted" and stream["category"] in paths:
            rows[paths[stream["category"]]][stream["id"]] = {name: shown(value) for name, value in row.items()}
    for job_id, row in rows["agent-jobs"].items():
        row["tokens_used"] = tokens[job_id]
    return rows


class ServiceMachine(LedgerMachine):
    """A running service and the model."""

    def __init__(self, run: Run, server_url: URL, template: str) -> None:
        super().__init__()
        self.service = Service(run, server_url, template, clock=lambda: self.now)
        self.forms = itertools.cycle(itertools.product(("object", "array", "ndjson"), (False, True)))
        # Small pages first, so that rows are also loaded again between the events that change them.
        self.pages = itertools.cycle((1, 2, EVERYTHING))
        self.is_consistent = True

    def submit(self, events: list[Event], *, independent: bool = False) -> None:
        self.is_consistent = False
        super().submit([with_stream_id(event) for event in events], independent=independent)
        events_max = next(self.pages)
        if events_max is EVERYTHING:
            self.compare_read_models()
        else:
            self.service.fold(events_max)
        self.is_consistent = True

    def answer(self, events: list[Event], independent: bool) -> list[Verdict]:
        form, also_independent = next(self.forms)
        independent = independent or (also_independent and len(events) == 1)
        in_batch = form != "object" or len(events) > 1
        body = json.dumps(events if in_batch else events[0])
        if form == "ndjson":
            body = "\n".join(map(json.dumps, events))
        content_type = "application/x-ndjson" if form == "ndjson" else "application/json"

        status, header, answer = self.service.post(body, content_type, "independent" if independent else "atomic")

        if "type" in answer:
            assert answer["status"] == status
            assert in_batch == ("index" in answer)
            return [as_verdict(answer, answer.get("index", 0))]
        judged = answer["results" if independent else "events"]
        receipts = [(sent, receipt) for sent, receipt in zip(events, judged, strict=True) if "type" not in receipt]
        for sent, receipt in receipts:
            assert (receipt["id"], receipt["stream_id"]) == (canonical_id(sent["id"]), stream_of(sent))
        new = not independent and not all(receipt["duplicate"] for _, receipt in receipts)
        assert status == (201 if new else 200)
        assert answer["position"] == max((receipt["position"] for _, receipt in receipts), default=0)
        assert header == str(answer["position"])
        return [as_verdict(result, result.get("index", index)) for index, result in enumerate(judged)]

    def held(self) -> dict[str, datetime]:
        """Return the open holds with their expiry times."""
        held = [stream for stream in self.model.streams.values() if stream["status"] == "held"]
        return {stream["id"]: stream["expires_at"] for stream in held}

    @precondition(lambda self: self.held())
    @rule(data=st.data(), late=st.sampled_from([None, -0.000001, 0, 1]))
    def expire(self, data: st.DataObject, late: float | None) -> None:
        """Expire the holds that are due, after moving the clock to just before, at or after the expiry of a hold."""
        if late is not None:
            expiry = data.draw(st.sampled_from(sorted(self.held().values())))
            self.now = max(self.now, expiry + timedelta(seconds=late))
        due = {entry_id: expires_at for entry_id, expires_at in self.held().items() if expires_at <= self.now}
        self.is_consistent = False

        assert self.service.expire_holds() == len(due)

        expired = self.service.events(after=self.model.position)
        order = [event["stream_id"] for event in expired]
        # Holds with the same expiry time may expire in any order.
        assert [due[entry_id] for entry_id in order] == sorted(due.values())
        assert sorted(order) == sorted(due)
        for event in expired:
            verdict = Verdict(None, event["version"], event["position"])
            assert (event["type"], event["actor"], event["recorded_at"]) == ("cost.expired", "ledger", shown(self.now))
            assert verdict == self.model.expire(event["stream_id"], self.now)
        self.is_consistent = True

    def teardown(self) -> None:
        try:
            if self.is_consistent:
                self.compare_items(self.compare_read_models())
                self.compare_prices()
                self.compare_budgets()
                self.audit()
        finally:
            self.service.stop()

    def compare_read_models(self) -> dict[str, Rows]:
        """Fold the remaining events, and compare the collections with the model; return their items."""
        while self.service.fold():
            pass
        listed = {}
        for path, expected in rows_of(self.model).items():
            status, page = self.service.get(f"{path}?limit=500", self.model.position)
            assert (status, page["next"]) == (200, None)
            listed[path] = {item["id"]: item for item in page["items"]}
            seen = {
                row_id: {name: item[name] for name in expected.get(row_id, item)}
                for row_id, item in listed[path].items()
            }
            assert seen == expected, path
        return listed

    def compare_prices(self) -> None:
        status, page = self.service.get("prices?limit=500", self.model.position)
        assert (status, page["next"]) == (200, None)
        seen = [(row["price_position"], row["effective_from"], row["withdrawn"]) for row in page["items"]]
        streams = [stream for stream in self.model.streams.values() if stream["category"] == "price"]
        periods = [period for stream in streams for period in stream["periods"]]
        expected = [(each["position"], shown(each["from"]), each["rates"] is None) for each in periods]
        assert sorted(seen) == sorted(expected)

    def compare_items(self, listed: dict[str, Rows]) -> None:
        for path, rows in listed.items():
            for row_id, row in rows.items():
                assert self.service.get(f"{path}/{row_id}", self.model.position) == (200, row)

    def compare_budgets(self) -> None:
        campaigns = [stream for (category, _), stream in self.model.streams.items() if category == "campaign"]
        for campaign in campaigns:
            status, budget = self.service.get(f"campaigns/{campaign['id']}/budget", self.model.position)
            if campaign["status"] == "deleted":
                assert (status, budget["type"]) == (404, "/problems/not-found")
                continue
            limit, spent, held = campaign["limit"], campaign["spent"], campaign["held"]
            expected = {"budget": limit, "spent": spent, "held": held, "available": difference(limit, spent, held)}
            # The clock of the machine is in the past.
            expected |= {"currency": campaign["currency"], "burn_rate_per_day": "0", "days_left": None}
            assert {name: budget[name] for name in expected} == {name: shown(value) for name, value in expected.items()}

    def audit(self) -> None:
        """Compute the balances from the events alone, as an auditor does, and compare them with the model."""
        auditor = Auditor()
        for event in self.service.events():
            auditor.read(SimpleNamespace(**{**event, "data": json.dumps(event["data"])}))
        assert auditor.position == self.model.position
        denials = auditor.versions.keys() - self.model.streams.keys()
        assert len(denials) == len(self.model.denials)
        for key, stream in self.model.streams.items():
            assert auditor.versions[key] == stream["version"]
            if key[0] in ("campaign", "job"):
                seen = auditor.limits[key], auditor.spent[key], auditor.held[key]
                assert seen == (stream["limit"], stream["spent"], stream["held"])


def test_the_service_decides_like_the_model(server_url: URL, template: str) -> None:
    with loop_in_a_thread() as run:
        run_state_machine_as_test(lambda: ServiceMachine(run, server_url, template), settings=SETTINGS)
