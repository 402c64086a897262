"""The price check of `ledger verify` reads the log in windows of positions."""

from typing import Any

from projections.price_faults import EVENTS_PER_STATEMENT_MAX, find_price_faults


class EmptyLog:
    """A connection to a log without costs; it notes the windows that are read."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, int]] = []

    async def fetchval(self, statement: str, *arguments: Any) -> str:
        assert "load_prices" in statement
        return "[]"

    async def fetch(self, statement: str, after: int, until: int) -> list[Any]:
        assert "cost_events" in statement
        self.windows.append((after, until))
        return []


async def test_no_statement_reads_more_than_a_window_of_positions() -> None:
    log: Any = EmptyLog()
    until = 2 * EVENTS_PER_STATEMENT_MAX + 5

    assert [fault async for fault in find_price_faults(log, until)] == []

    assert [last - after for after, last in log.windows] == [EVENTS_PER_STATEMENT_MAX, EVENTS_PER_STATEMENT_MAX, 5]
    assert [after for after, _ in log.windows[1:]] == [last for _, last in log.windows[:-1]]
    assert (log.windows[0][0], log.windows[-1][1]) == (0, until)
