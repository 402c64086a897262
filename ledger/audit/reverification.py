"""Background re-verification: hash all sealed events again, slowly, and compare with the stored tree.

One pass goes through the whole sealed log in chunks, spread over the period, then the next one begins. The row of
`ledger.reverification` has the position reached, so that a pass continues after a restart; its lock ensures
that only one process works at a time. A changed event stops the pass: its chunk is hashed again until it matches.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from ledger.audit import tree_store
from ledger.audit.merkle import HASH_BYTES
from ledger.audit.seal_check import read_present_leaf_hashes
from ledger.audit.tiles import TILE_HEIGHT, TILE_WIDTH
from ledger.audit.tree_growth import append_leaves
from ledger.audit.tree_store import SealedTree, TreeDamagedError
from ledger.database import Connection, Database, log_level

logger = logging.getLogger(__name__)

CHUNK_EVENTS = 4 * TILE_WIDTH
"""Events hashed by one statement: whole tiles, and few enough that appends do not notice."""

CHUNK_SECONDS_MIN = 1.0
"""The shortest time from one chunk to the next. A log of more than 88 million events takes longer than a day."""

START_SECONDS = 5.0
"""Pause after the start of a process, and while another process is at work."""

RETRY_SECONDS = 60.0
"""Pause before a changed chunk is hashed again, and after an error."""

EMPTY_SECONDS = 600.0
"""Pause while nothing is sealed."""

TIMEOUTS = "SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"

READ = """
SELECT position, started_at, next_at, last_full_pass_at, changed_position, change, clock_timestamp() AS now
FROM ledger.reverification
"""
TRY_LOCK = f"{READ} FOR UPDATE SKIP LOCKED"

STORE = """
UPDATE ledger.reverification SET position = $1, started_at = $2, next_at = $3, last_full_pass_at = $4,
    changed_position = $5, change = $6
"""

ROW_DELETED = "the row of ledger.reverification has been deleted: run `ledger verify`"

ADVICE = (
    "find out who changed it, keep a copy of the database, and restore the log from a backup; `ledger verify` lists "
    "every changed event"
)


class Reverification(msgspec.Struct, frozen=True):
    """The progress of the re-verification, the row of `ledger.reverification`.

    `started_at` is None between two passes; `changed_position` and `change` say what differs from the seal.
    """

    position: int = 0
    started_at: datetime | None = None
    next_at: datetime | None = None
    last_full_pass_at: datetime | None = None
    changed_position: int | None = None
    change: str | None = None

    def problem(self) -> str | None:
        """Describe what was changed and what to do; None if nothing was changed."""
        if self.change is None:
            return None
        return f"{self.change}. Next: {ADVICE}"


class Change(NamedTuple):
    """A difference from the sealed log, and the first position that it may affect."""

    position: int
    description: str


class Reverifier:
    """Re-verifies the sealed log. Run it as a task, in the processes that seal."""

    def __init__(self, database: Database, hours: float) -> None:
        """Set up a re-verification; `run` starts it.

        Args:
            database: of the log; one connection of its pool is used for each chunk.
            hours: the duration of a pass.
        """
        self._database = database
        self._period = timedelta(hours=hours)

    async def run(self) -> None:
        """Re-verify until cancelled."""
        pause = START_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                pause = await self.step()
            except Exception as error:
                level = log_level(error, logging.ERROR)
                logger.log(level, "re-verification failed; next attempt in %.0f s", RETRY_SECONDS, exc_info=error)
                pause = RETRY_SECONDS

    async def step(self) -> float:
        """Hash the next chunk if it is due and no other process is at work; return the seconds until the next step."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(TIMEOUTS)
            row = await connection.fetchrow(TRY_LOCK)
            if row is None:
                return START_SECONDS
            before = Reverification(*tuple(row)[:-1])
            now: datetime = row["now"]
            if before.next_at is not None and before.next_at > now:
                return (before.next_at - now).total_seconds()
            sealed = await tree_store.read_sealed_tree(connection)
            after = await self._advance(connection, before, sealed, now)
            await connection.execute(STORE, *msgspec.structs.astuple(after))
        _log_change(before, after)
        assert after.next_at is not None
        return (after.next_at - now).total_seconds()

    async def _advance(
        self, connection: Connection, before: Reverification, sealed: SealedTree, now: datetime
    ) -> Reverification:
        """Hash one chunk; return the progress after it."""
        if sealed.size == 0:
            return Reverification(0, None, now + timedelta(seconds=EMPTY_SECONDS), before.last_full_pass_at)
        is_new_pass = before.started_at is None or before.position >= sealed.size
        position, started_at = (0, now) if is_new_pass else (before.position, before.started_at or now)
        until = min(sealed.size, position + CHUNK_EVENTS)
        change = await find_change(connection, sealed, position, until)
        if change is not None:
            retry_at = now + timedelta(seconds=RETRY_SECONDS)
            return Reverification(position, started_at, retry_at, before.last_full_pass_at, *change)
        soonest = now + timedelta(seconds=CHUNK_SECONDS_MIN)
        next_at = max(soonest, started_at + self._period * (until / sealed.size))
        if until == sealed.size:
            return Reverification(until, None, next_at, now)
        return Reverification(until, started_at, next_at, before.last_full_pass_at)


def _log_change(before: Reverification, after: Reverification) -> None:
    if after.change is not None and after.change != before.change:
        logger.critical("LOG CHANGED: %s", after.problem())
    elif before.change is not None and after.change is None:
        logger.warning("the sealed events match the seal again, up to position %d", after.position)


async def find_change(connection: Connection, sealed: SealedTree, after: int, until: int) -> Change | None:
    """Hash a range of sealed events and compare it with the tree, on every level.

    Args:
        connection: to the primary.
        sealed: the size and root of the tree.
        after: position before the first event; a multiple of `CHUNK_EVENTS`.
        until: position of the last event, at most the sealed size.

    Returns:
        The first difference, or None.
    """
    leaves = await read_present_leaf_hashes(connection, after, until)
    try:
        tiles, edge = append_leaves(await tree_store.read_edge(connection, after), leaves)
    except TreeDamagedError as error:
        return Change(after + 1, f"the tree of the sealed events is damaged: {error}")
    stored = await tree_store.read_tiles(connection, tiles)
    for (level, index), tile in sorted(tiles.items()):
        # The tile may have grown since.
        if (change := _compare_tile(level, index, tile, stored.get((level, index), b""))) is not None:
            return change
    if until == sealed.size and edge.root != sealed.root:
        return Change(until, f"the first {until:,} events do not give the root that was signed")
    return None


def _compare_tile(level: int, index: int, tile: bytes, stored: bytes) -> Change | None:
    """Return the first difference of a stored tile from the one that the events give; it may have grown since."""
    for start in range(0, len(tile), HASH_BYTES):
        if stored[start : start + HASH_BYTES] == tile[start : start + HASH_BYTES]:
            continue
        number = index * TILE_WIDTH + start // HASH_BYTES
        if level == 0:
            is_missing = tile[start : start + HASH_BYTES] == bytes(HASH_BYTES)
            fault = "was sealed, but is missing" if is_missing else "differs from the seal"
            return Change(number + 1, f"the event at position {number + 1:,} {fault}")
        width = 1 << TILE_HEIGHT * level
        first, last = number * width + 1, (number + 1) * width
        return Change(first, f"one of the events {first:,} to {last:,}, or the tree over them, differs from the seal")
    return None


async def read_reverification(connection: Connection) -> Reverification:
    """Read the progress of the re-verification."""
    row = await connection.fetchrow(READ)
    if row is None:
        return Reverification(change=ROW_DELETED)
    return Reverification(*tuple(row)[:-1])
