"""A model of the append protocol: two processes, the database, and every step that may come next.

It has the rules of `ledger/log/pipeline.py` and nothing else. Requests are holds of 1 ("a") and their releases ("-a").
A working state is the log that the process believes in; a head is the log up to it, so that equal heads mean equal
histories. `World.steps` yields the worlds after each step that a process, the database or a failure can take next.
"""

from collections.abc import Iterator
from typing import NamedTuple

LIMIT = 1

RECORD, DUPLICATE, REFUSE = "record", "duplicate", "refuse"


class Event(NamedTuple):
    """A recorded request, at the position that its process assigned."""

    position: int
    request: str


Log = tuple[Event, ...]


class BrokenPromiseError(Exception):
    """The protocol allowed something that it must prevent."""


class Rules(NamedTuple):
    """The rules of the protocol. Without any one of them, it is broken."""

    compares_head: bool = True
    rejects_unknown_heads: bool = True
    prefers_resident_states: bool = True
    answers_after_commit: bool = True
    waits_to_answer_groups_without_events: bool = True
    drops_state_after_failure: bool = True
    judges_again_after_failure: bool = True


def judge(log: Log, request: str) -> str:
    """Return the verdict on a request: a hold must fit the limit, and a release needs its hold."""
    recorded = {event.request for event in log}
    if request in recorded:
        return DUPLICATE
    if request.startswith("-"):
        return RECORD if request[1:] in recorded else REFUSE
    held = sum(-1 if event.request.startswith("-") else 1 for event in log)
    return RECORD if held < LIMIT else REFUSE


class Waiting(NamedTuple):
    """A request, and the length of the log when it arrived."""

    request: str
    arrived_at: int


class Group(NamedTuple):
    """Requests that are prepared or written together. `is_locked` if the locked path has to record them."""

    waiting: tuple[Waiting, ...] = ()
    verdicts: tuple[str, ...] = ()
    before: Log = ()
    events: Log = ()
    is_locked: bool = False

    def judged(self, state: Log, waiting: Waiting) -> "Group":
        """Return the group with one more request, judged on this state."""
        verdict = judge(state, waiting.request)
        position = len(self.before) + len(self.events) + 1
        events = (Event(position, waiting.request),) if verdict == RECORD else ()
        return self._replace(
            waiting=(*self.waiting, waiting), verdicts=(*self.verdicts, verdict), events=self.events + events
        )

    def given_up(self, waiting: Waiting) -> "Group":
        """Return the group with one more request, for the locked path."""
        return self._replace(waiting=(*self.waiting, waiting), is_locked=True)


EMPTY = Group()


class Load(NamedTuple):
    """A read that is under way for one request, with the log that its snapshot sees."""

    waiting: Waiting
    snapshot: Log


class Process(NamedTuple):
    """What a process remembers. Its clients will send the requests of `script`.

    `writing` is the group in flight, and `outcome` what is known about it: sent, committed or failed.
    """

    script: tuple[str, ...]
    queue: tuple[Waiting, ...] = ()
    state: Log | None = None
    head: Log = ()
    load: Load | None = None
    open: Group = EMPTY
    writing: Group | None = None
    outcome: str = ""
    locked: tuple[tuple[Waiting, ...], ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether everything judged so far is answered."""
        return self.load is None and self.writing is None and not self.open.waiting and not self.locked


class World(NamedTuple):
    """The log, the processes, the writes that nobody waits for any more, and how many failures may still happen."""

    log: Log
    processes: tuple[Process, ...]
    orphans: frozenset[Group] = frozenset()
    failures: int = 0

    def steps(self, rules: Rules) -> Iterator["World"]:
        """Yield the world after every possible step.

        Raises:
            BrokenPromiseError: a step breaks a promise.
        """
        for orphan in self.orphans:
            yield self._replace(log=written(self.log, orphan, rules)[0], orphans=self.orphans - {orphan})
        for index, process in enumerate(self.processes):
            for log, changed in process_steps(self.log, process, rules):
                yield self.changed(index, changed)._replace(log=log)
            if self.failures:
                yield from self._failures(index, process)

    def changed(self, index: int, process: Process) -> "World":
        """Return the world with another process at this index."""
        return self._replace(processes=(*self.processes[:index], process, *self.processes[index + 1 :]))

    def _failures(self, index: int, process: Process) -> Iterator["World"]:
        """Yield the worlds after a failure. A write in flight may still be executed, now, later, or never."""
        failed = self._replace(failures=self.failures - 1)
        orphaned = failed
        if process.writing is not None and process.outcome == "sent":
            orphaned = failed._replace(orphans=self.orphans | {process.writing})
            yield orphaned.changed(index, process._replace(outcome="failed"))
        # A crash and a restart. A timeout does the same: it drops the state, and fails everything that waits.
        yield orphaned.changed(index, Process(process.script))
        if process.load is not None:
            yield failed.changed(index, process._replace(load=None, open=process.open.given_up(process.load.waiting)))
        if process.locked:
            # The commit succeeds, but its answer is lost: the group is retried.
            group = judged_under_lock(self.log, process.locked[0])
            yield failed._replace(log=self.log + group.events)


def process_steps(log: Log, process: Process, rules: Rules) -> Iterator[tuple[Log, Process]]:
    """Yield the log and the process after each step that the process, or the database for it, can take."""
    if process.script:
        arrived = Waiting(process.script[0], len(log))
        yield log, process._replace(script=process.script[1:], queue=(*process.queue, arrived))
    if process.locked:
        yield record_locked(log, process, rules)
        return
    if process.writing is not None and process.outcome == "sent":
        after, outcome = written(log, process.writing, rules)
        if outcome == "committed" and rules.answers_after_commit:
            answer(after, process.writing)
        yield after, process._replace(outcome=outcome)
    if process.load is not None:
        yield log, merged(process, process.load, rules)
        return
    may_grow = process.writing is not None and not process.open.is_locked
    if process.queue and (may_grow or not process.open.waiting):
        yield log, process._replace(queue=process.queue[1:], load=Load(process.queue[0], log))
    if process.outcome != "sent" and (process.open.waiting or process.writing is not None):
        yield log, advanced(log, process, rules)
    if not (rules.waits_to_answer_groups_without_events or process.open.events or process.open.is_locked):
        answer(log, process.open)


def merged(process: Process, load: Load, rules: Rules) -> Process:
    """The load has returned: judge its request on the working state, or leave it to the locked path."""
    process = process._replace(load=None)
    if process.state is None:
        process = process._replace(state=load.snapshot, head=load.snapshot)
    elif rules.rejects_unknown_heads and load.snapshot not in known_heads(process):
        return process._replace(open=process.open.given_up(load.waiting))
    elif not rules.prefers_resident_states:
        process = process._replace(state=load.snapshot)
    assert process.state is not None
    before = process.open if process.open.waiting else EMPTY._replace(before=process.head)
    group = before.judged(process.state, load.waiting)
    return process._replace(state=process.state + group.events[len(before.events) :], open=group)


def known_heads(process: Process) -> tuple[Log, ...]:
    """Return the head after the last judged group, and the head before the group in flight."""
    return (process.head, process.writing.before) if process.writing is not None else (process.head,)


def written(log: Log, group: Group, rules: Rules) -> tuple[Log, str]:
    """Execute a compare-and-swap; return the log after it and its outcome."""
    is_duplicate = {event.request for event in group.events} & {event.request for event in log}
    if is_duplicate or (rules.compares_head and log != group.before):
        return log, "failed"
    return log + group.events, "committed"


def advanced(log: Log, process: Process, rules: Rules) -> Process:
    """The write has ended: start the next one, answer a group without events, or begin the locked path."""
    writing, group, outcome = process.writing, process.open, process.outcome
    process = process._replace(writing=None, outcome="", open=EMPTY)
    if outcome == "failed" or group.is_locked:
        unanswered = (writing.waiting,) if writing is not None and outcome == "failed" else ()
        if not rules.judges_again_after_failure and not group.is_locked:
            return process._replace(locked=unanswered, open=group)
        return process._replace(locked=(*unanswered, *((group.waiting,) if group.waiting else ())))
    if not group.events:
        answer(log, group)
        return process
    if not rules.answers_after_commit:
        answer(log, group)
    return process._replace(writing=group, outcome="sent", head=group.before + group.events)


def record_locked(log: Log, process: Process, rules: Rules) -> tuple[Log, Process]:
    """Lock, load, judge, write, commit and answer: no other process can append in between."""
    group = judged_under_lock(log, process.locked[0])
    log += group.events
    answer(log, group)
    state = log if rules.drops_state_after_failure else process.state
    return log, process._replace(locked=process.locked[1:], state=state, head=log)


def judged_under_lock(log: Log, waiting: tuple[Waiting, ...]) -> Group:
    """Judge a group on the log itself."""
    group = EMPTY._replace(before=log)
    for one in waiting:
        group = group.judged(log + group.events, one)
    return group


def answer(log: Log, group: Group) -> None:
    """Answer the senders of a group; the log must already support the answers."""
    for waiting, verdict in zip(group.waiting, group.verdicts, strict=True):
        if verdict == REFUSE:
            # At some moment between its arrival and now, the log itself refused the request.
            moments = range(waiting.arrived_at, len(log) + 1)
            if not any(judge(log[:length], waiting.request) == REFUSE for length in moments):
                raise BrokenPromiseError(f"{waiting.request} was refused without a reason")
        elif waiting.request not in {event.request for event in log}:
            raise BrokenPromiseError(f"{waiting.request} was acknowledged before it was durable")
