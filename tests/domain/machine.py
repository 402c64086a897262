"""`LedgerMachine`: a hypothesis state machine that sends the same events to a ledger and to the model."""

from datetime import timedelta
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.domain.contract import Event
from tests.domain.drawing import NOUNS, Drawer
from tests.domain.helpers import NOW
from tests.domain.model import Model, Verdict

RECENT = 30
"""The number of last events that may be sent again."""


class LedgerMachine(RuleBasedStateMachine):
    """A ledger and the model, with the same events at the same times; a subclass provides the ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.now = NOW
        self.sent: list[Event] = []
        self.streams: dict[str, list[str]] = {noun: [] for noun in NOUNS}
        self.ids = 0

    def answer(self, events: list[Event], independent: bool) -> list[Verdict]:
        """Send a request to the ledger and return the verdicts as those of the model."""
        raise NotImplementedError

    def new_id(self) -> str:
        self.ids += 1
        return str(UUID(int=(7 << 76) + self.ids))

    def drawer(self, data: st.DataObject) -> Drawer:
        return Drawer(data.draw, self.streams, self.model, self.new_id)

    def submit(self, events: list[Event], *, independent: bool = False) -> None:
        """Let both judge a request, and compare the verdicts."""
        self.sent += events
        judged = self.model.apply_independently if independent else self.model.apply_together
        expected = judged(events, self.now)

        answer = self.answer(events, independent)

        assert answer == expected, f"\n  {answer}, but the model returns\n  {expected}"

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Create a campaign and a job of it, mostly in one currency."""
        drawer = self.drawer(data)
        owner, working = self.new_id(), self.new_id()
        self.streams["campaign"].append(owner)
        created = {"type": "campaign.created", "id": owner, "data": drawer.data("campaign.created")}
        self.submit([created])
        self.streams["job"].append(working)
        self.submit([{"type": "job.queued", "id": working, "data": drawer.data("job.queued")}])

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        self.submit([self.drawer(data).event()])

    @rule(data=st.data(), count=st.integers(2, 6), independent=st.booleans())
    def send_many(self, data: st.DataObject, count: int, independent: bool) -> None:
        events = self.drawer(data).events(count, self.now)
        if self.sent and data.draw(st.booleans()):
            events.append(data.draw(st.sampled_from(self.sent[-RECENT:] + events)))
        self.submit(events, independent=independent)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.sent[-RECENT:]))
        self.submit([self.drawer(data).changed(event)])

    @rule(seconds=st.sampled_from([0.000001, 1, 60, 900]))
    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
