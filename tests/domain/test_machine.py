"""The domain decides like the model for events in any order; its balances are sums of the events."""

from datetime import timedelta
from fractions import Fraction
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from ledger.domain.errors import BudgetExceeded, Refused, VersionConflict
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import judge
from ledger.domain.log_history import LogHistory
from ledger.domain.rejudge import rejudge, to_candidate
from ledger.domain.service_events import hold_expiry
from ledger.domain.working_state import WorkingState
from tests.domain.auditor import Auditor
from tests.domain.contract import Event
from tests.domain.helpers import NOW, candidate, prices_of
from tests.domain.machine import LedgerMachine
from tests.domain.model import Verdict


def as_verdict(answer: Receipt | Refused) -> Verdict:
    """Convert an answer of the ledger to a verdict of the model."""
    if isinstance(answer, Receipt):
        return Verdict(None, answer.version, answer.position, answer.duplicate, answer.over_budget)
    members = answer.members if isinstance(answer, BudgetExceeded | VersionConflict) else None
    return Verdict(answer.slug, members=members, index=answer.index)


class WorkingStateMachine(LedgerMachine):
    """The domain alone: a working state without a database."""

    def __init__(self) -> None:
        super().__init__()
        self.working_state = WorkingState(0, NOW)
        self.auditor = Auditor()
        self.denied: set[UUID] = set()

    def answer(self, events: list[Event], independent: bool) -> list[Verdict]:
        self.working_state.recorded_at = self.now
        answers = judge(self.working_state, Request([candidate(event) for event in events], independent))
        self.record_denials()
        return [as_verdict(answer) for answer in answers]

    def record_denials(self) -> None:
        """Record denials as `ledger.log.append` does: after all events, each once."""
        for denial_id, denial in self.working_state.denials.items():
            if denial_id not in self.denied:
                self.working_state.record(denial.candidate, denial.campaign_id, denial.agent_job_id)
        self.denied |= self.working_state.denials.keys()
        self.working_state.denials.clear()

    @precondition(lambda self: self.streams["cost"])
    @rule(data=st.data(), late=st.sampled_from([None, -0.000001, 0, 1]))
    def expire(self, data: st.DataObject, late: float | None) -> None:
        """Expire an entry, mostly one that is held: just before it is due, when it is due, or now."""
        entries = self.streams["cost"]
        held = [entry for entry in entries if self.model.status("cost", entry) == "held"]
        entry_id = data.draw(st.sampled_from(held or entries[-1:]))
        if held and late is not None:
            due = self.model.streams["cost", entry_id]["expires_at"]
            self.now = max(self.now, due + timedelta(seconds=late))
        expected = self.model.expire(entry_id, self.now)

        self.working_state.recorded_at = self.now
        (answer,) = judge(
            self.working_state, Request([hold_expiry(UUID(entry_id), UUID(self.new_id()))], independent=True)
        )

        assert as_verdict(answer) == expected

    @invariant()
    def statuses_versions_and_balances_equal_those_of_the_model(self) -> None:
        for (category, stream_id), stream in self.model.streams.items():
            key = category, UUID(stream_id)
            if category == "cost":
                entry = self.working_state.entries[key[1]]
                seen = {"status": entry.status, "version": entry.version, "cost": entry.cost, "held": entry.held}
                seen |= {"unpriced": entry.unpriced}
                assert seen == {name: stream[name] for name in seen}
                continue
            head = self.working_state.heads[key]
            assert (head.state.status, head.version) == (stream["status"], stream["version"])
            if category == "campaign" or stream.get("entries"):
                account = self.working_state.accounts[key]
                seen = {"limit": account.limit, "spent": account.spent, "held": account.held}
                assert seen == {name: stream[name] for name in seen}
        assert len(self.working_state.heads) + len(self.working_state.entries) == len(self.model.streams)
        assert self.working_state.position == self.model.position == len(self.working_state.events)

    @invariant()
    def the_auditor_finds_no_gap_no_exceeded_budget_and_the_same_balances(self) -> None:
        for event in self.working_state.events[self.auditor.position :]:
            self.auditor.read(event)
        for scope, account in self.working_state.accounts.items():
            assert account.limit == self.auditor.limits[scope]
            assert (account.spent, account.held) == (self.auditor.spent[scope], self.auditor.held[scope])

    @invariant()
    def accounts_are_the_sums_of_their_entries_and_open_holds(self) -> None:
        for (scope, account_id), account in self.working_state.accounts.items():
            ids = {account_id} if scope == "campaign" else self.jobs_below(account_id)
            names = "campaign_id" if scope == "campaign" else "agent_job_id"
            costs = [entry.cost for entry in self.working_state.entries.values() if getattr(entry, names) in ids]
            holds = [hold.amount for hold in self.working_state.holds.values() if getattr(hold, names) in ids]
            assert Fraction(account.spent) == sum(map(Fraction, costs))
            assert Fraction(account.held) == sum(map(Fraction, holds))
        held = {entry_id for entry_id, entry in self.working_state.entries.items() if entry.status == "held"}
        assert held == self.working_state.holds.keys()

    def jobs_below(self, job_id: UUID) -> set[UUID]:
        """Return a job and all jobs below it, by the model."""
        parents = {key[1]: stream["parent"] for key, stream in self.model.streams.items() if key[0] == "job"}
        below = {str(job_id)}
        while more := {child for child, parent in parents.items() if parent in below} - below:
            below |= more
        return {UUID(each) for each in below}

    def teardown(self) -> None:
        """Judging the recorded events again, from an empty working state, gives the same rows and states."""
        again, history = WorkingState(0, NOW), LogHistory()

        rows = [
            rejudge(again, history, event, to_candidate(event._replace(over_budget=None, size=0)))
            for event in self.working_state.events
        ]

        denied = {event.stream_id for event in self.working_state.events if event.type == "cost.denied"}
        entries = {stream_id: entry for stream_id, entry in again.entries.items() if stream_id not in denied}
        assert rows == self.working_state.events
        assert (again.heads, prices_of(again.prices), again.accounts, again.holds, entries) == (
            self.working_state.heads,
            prices_of(self.working_state.prices),
            self.working_state.accounts,
            self.working_state.holds,
            self.working_state.entries,
        )


class TestTheLedgerDecidesAsTheModelDoes(WorkingStateMachine.TestCase):
    """Run by hypothesis with the settings of the profile."""
