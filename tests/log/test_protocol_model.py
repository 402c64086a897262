"""The append protocol keeps its promises in every order of steps and failures (model search)."""

import pytest

from tests.log.protocol_model import RECORD, BrokenPromiseError, Process, Rules, World, judge

SCENARIOS = {
    "a hold is freed by another process": (("a", "b"), ("-a", "c"), 2),
    "a request is retried with another process": (("a", "b", "-a"), ("a",), 2),
    "a request is retried with the same process": (("a", "-a", "a", "b"), (), 2),
    "both processes receive the same requests": (("a", "b", "-a"), ("b", "-a"), 1),
}
"""The requests that arrive at each of two processes, and how many failures may happen."""


def require_valid(world: World) -> None:
    """Check the log of a world, and the working states of its idle processes."""
    if [event.position for event in world.log] != list(range(1, len(world.log) + 1)):
        raise BrokenPromiseError("positions have a gap or repeat")
    for index, event in enumerate(world.log):
        if judge(world.log[:index], event.request) != RECORD:
            raise BrokenPromiseError(f"{event.request} was recorded twice or past the limit")
    for process in world.processes:
        if process.is_idle and process.state is not None and process.state != world.log[: len(process.state)]:
            raise BrokenPromiseError("a working state differs from what a load would return")


def search(scripts: tuple[tuple[str, ...], ...], failures: int, rules: Rules) -> int:
    """Visit every world that can be reached; return their number.

    Raises:
        BrokenPromiseError: a world or a step breaks a promise.
    """
    start = World((), tuple(Process(script) for script in scripts), failures=failures)
    seen, unvisited = {start}, [start]
    while unvisited:
        world = unvisited.pop()
        following = set(world.steps(rules))
        if not following and not all(process.is_idle and not process.queue for process in world.processes):
            raise BrokenPromiseError("a request is never answered")
        for new in following - seen:
            require_valid(new)
        unvisited += following - seen
        seen |= following
    return len(seen)


@pytest.mark.parametrize(("first", "second", "failures"), SCENARIOS.values(), ids=SCENARIOS)
def test_no_order_of_steps_and_failures_breaks_a_promise(
    first: tuple[str, ...], second: tuple[str, ...], failures: int
) -> None:
    assert search((first, second), failures, Rules()) > 1_000


@pytest.mark.parametrize("rule", Rules._fields)
def test_without_any_one_of_its_rules_the_protocol_breaks_a_promise(rule: str) -> None:
    with pytest.raises(BrokenPromiseError):
        for first, second, _ in SCENARIOS.values():
            search((first, second), 1, Rules(**{rule: False}))
