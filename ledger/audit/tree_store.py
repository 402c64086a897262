"""The Merkle tree in PostgreSQL: leaf hashes computed in SQL, stored tiles, and the sealed size."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from ledger.audit.merkle import HASH_BYTES, Subtree, combine, root_nodes, root_of
from ledger.audit.tiles import Tile, TileRange, edge_tiles, locate
from ledger.audit.tree_growth import RightEdge, right_edge_from_tiles
from ledger.database import Connection
from ledger.database.singleton import HEAD_TABLE, require_row
from ledger.domain.errors import LedgerError

CHUNK_EVENTS = 16_384
"""Events whose leaf hashes one statement computes."""

_JSON = "coalesce('\"' || {0} || '\"', 'null')"
_TIME = """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

ENTRY_SQL = f"""
'{{"v":1,"position":' || position || ',"category":' || to_json(category) || ',"stream_id":"' || stream_id
|| '","version":' || version || ',"id":"' || id || '","type":' || to_json(type)
|| ',"schema_version":' || schema_version || ',"occurred_at":"' || {_TIME.format("occurred_at")}
|| '","recorded_at":"' || {_TIME.format("recorded_at")}
|| '","actor":' || to_json(actor) || ',"campaign_id":' || {_JSON.format("campaign_id")}
|| ',"agent_job_id":' || {_JSON.format("agent_job_id")} || ',"correlation_id":' || {_JSON.format("correlation_id")}
|| ',"causation_id":' || {_JSON.format("causation_id")} || ',"data":' || data::text
|| ',"text_commitment":' || {_JSON.format("text_commitment")} || '}}'
"""
"""`log_entry.encode_entry` as an SQL expression, so that sealing does not have to fetch the events."""

LEAF_HASH_SQL = rf"sha256('\x00'::bytea || convert_to({ENTRY_SQL}, 'UTF8'))"

READ_LEAF_HASHES = f"""
SELECT string_agg({LEAF_HASH_SQL}, ''::bytea ORDER BY position) FROM ledger.events
WHERE position > $1 AND position <= $2
"""  # noqa: S608 (fixed texts)

READ_ENTRIES = f"""
SELECT convert_to({ENTRY_SQL}, 'UTF8') FROM ledger.events
WHERE position > $1 AND position <= $2 ORDER BY position
"""  # noqa: S608 (fixed texts)

READ_TILES = """
SELECT level, index, hashes FROM ledger.log_tiles
WHERE (level, index) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
"""

WRITE_TILES = """
INSERT INTO ledger.log_tiles (level, index, hashes) SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])
ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes
"""

READ_SEALED_TREE = "SELECT size, root, origin, verifier_key, note, sealed_at, refusal FROM ledger.log_checkpoint"
LOCK_SEALED_TREE = f"{READ_SEALED_TREE} FOR UPDATE"
TRY_LOCK_SEALED_TREE = f"{READ_SEALED_TREE} FOR UPDATE SKIP LOCKED"

STORE_SEAL = """
UPDATE ledger.log_checkpoint SET size = $1, root = $2, origin = $3, verifier_key = $4, note = $5,
    sealed_at = clock_timestamp(), refusal = NULL
"""

STORE_REFUSAL = "UPDATE ledger.log_checkpoint SET refusal = $1 WHERE refusal IS DISTINCT FROM $1"

ROW_DELETED = "the row of ledger.log_checkpoint has been deleted"

RESET_SEALED_TREE = """
DELETE FROM ledger.log_tiles;
DELETE FROM ledger.log_checkpoint;
INSERT INTO ledger.log_checkpoint (size, root) VALUES (0, sha256(''));
"""

READ_SEAL_STATUS = f"""
SELECT coalesce(sealed.size, 0), sealed.origin, sealed.verifier_key, sealed.sealed_at,
    CASE WHEN sealed.id IS NULL THEN '{ROW_DELETED}' ELSE sealed.refusal END, head.position AS head,
    coalesce(extract(epoch FROM clock_timestamp() - (
        SELECT recorded_at FROM ledger.events WHERE events.position = sealed.size + 1
    )), 0)::float8 AS lag_seconds
FROM ledger.log_head AS head LEFT JOIN ledger.log_checkpoint AS sealed ON true
"""  # noqa: S608 (fixed texts)

LAG_SECONDS_MAX = 60.0
"""A longer lag is a problem: sealing normally takes at most two seconds."""

REFUSAL_ADVICE = (
    "find out what happened to the database, and bring back the right one; only if that is lost, accept the loss with "
    "`ledger audit accept-rollback`"
)

Tiles = dict[tuple[int, int], bytes]
"""Hashes of tiles by level and index."""


class TreeDamagedError(LedgerError):
    """Part of the stored tree, or an event that it needs, is missing."""


class SealedTree(msgspec.Struct, frozen=True):
    """The row of `ledger.log_checkpoint`; `refusal` is the reason while the sealer refuses to sign."""

    size: int
    root: bytes
    origin: str | None
    verifier_key: str | None
    note: bytes | None
    sealed_at: datetime | None
    refusal: str | None


class SealStatus(msgspec.Struct, frozen=True):
    """Progress of sealing: sealed size and log head (positions). `verifier_key` is None if nothing was ever sealed."""

    size: int
    origin: str | None
    verifier_key: str | None
    sealed_at: datetime | None
    refusal: str | None
    head: int
    lag_seconds: float

    def problem(self) -> str | None:
        """Return what is wrong, in words; None if all is well or the log was never sealed."""
        if self.refusal is not None:
            return f"not sealed past {self.size}: {self.refusal}. Next: {REFUSAL_ADVICE}"
        if self.head < self.size:
            return f"{self.size:,} events are sealed, but the log has only {self.head:,}: its end is missing"
        if self.verifier_key is not None and self.lag_seconds > LAG_SECONDS_MAX:
            return (
                f"{self.head - self.size} events have been waiting to be sealed for {self.lag_seconds:.0f} s: "
                "is a sealer running?"
            )
        return None


async def read_sealed_tree(connection: Connection) -> SealedTree:
    """Read the size, root and last checkpoint of the sealed tree.

    Raises:
        TreeDamagedError: the row of `ledger.log_checkpoint` was deleted.
    """
    row = await connection.fetchrow(READ_SEALED_TREE)
    if row is None:
        raise TreeDamagedError(ROW_DELETED)
    return SealedTree(*row)


async def read_seal_status(connection: Connection) -> SealStatus:
    """Read the progress of sealing."""
    row = require_row(await connection.fetchrow(READ_SEAL_STATUS), HEAD_TABLE)
    return SealStatus(*row)


async def read_leaf_hashes(connection: Connection, after: int, until: int) -> bytes:
    """Compute the leaf hashes of a range of events.

    Args:
        connection: to the primary or a replica.
        after: position before the first event.
        until: position of the last event.

    Returns:
        The hashes in order, 32 bytes each, concatenated.

    Raises:
        TreeDamagedError: some of the events are missing.
    """
    leaves: bytes = await connection.fetchval(READ_LEAF_HASHES, after, until) or b""
    _require_all_events(len(leaves) // HASH_BYTES, after, until)
    return leaves


async def read_entries(connection: Connection, after: int, until: int) -> list[bytes]:
    """Read the log entries of a range of events.

    Args:
        connection: to the primary or a replica.
        after: position before the first event.
        until: position of the last event.

    Returns:
        The entries in order.

    Raises:
        TreeDamagedError: some of the events are missing.
    """
    entries = [row[0] for row in await connection.fetch(READ_ENTRIES, after, until)]
    _require_all_events(len(entries), after, until)
    return entries


def _require_all_events(count: int, after: int, until: int) -> None:
    if count != until - after:
        raise TreeDamagedError(f"positions {after + 1} to {until} should hold {until - after} events, but hold {count}")


async def read_tiles(connection: Connection, levels_and_indexes: Iterable[tuple[int, int]]) -> Tiles:
    """Read tiles by level and index, without those that are not stored."""
    keys = list(dict.fromkeys(levels_and_indexes))
    if not keys:
        return {}
    rows = await connection.fetch(READ_TILES, [level for level, _ in keys], [index for _, index in keys])
    return {(row["level"], row["index"]): row["hashes"] for row in rows}


async def write_tiles(connection: Connection, tiles: Mapping[tuple[int, int], bytes]) -> None:
    """Write tiles: new ones, and stored ones that have grown."""
    levels, indexes = zip(*tiles, strict=True)
    await connection.execute(WRITE_TILES, levels, indexes, list(tiles.values()))


async def read_edge(connection: Connection, size: int) -> RightEdge:
    """Read the right edge of the stored tree at a size.

    Raises:
        TreeDamagedError: a tile is missing.
    """
    tiles = await read_tiles(connection, ((tile.level, tile.index) for tile in edge_tiles(size)))
    try:
        return right_edge_from_tiles(size, tiles)
    except KeyError as error:
        level, index = error.args[0]
        raise TreeDamagedError(f"tile {index} of level {level} is missing") from None
    except ValueError as error:
        raise TreeDamagedError(str(error)) from None


async def read_subtrees(connection: Connection, groups: Iterable[Iterable[Subtree]]) -> list[bytes]:
    """Compute one hash per group of neighbouring complete subtrees, from the stored tiles.

    Raises:
        TreeDamagedError: a tile is missing.
    """
    ranges = [[locate(subtree) for subtree in group] for group in groups]
    tiles = await read_tiles(connection, ((tile.level, tile.index) for group in ranges for tile in group))
    return [combine([root_of(_hashes(tiles, tile_range)) for tile_range in group]) for group in ranges]


async def read_hashes(connection: Connection, tile: Tile) -> bytes:
    """Read the hashes of a tile; the sealed tree must be large enough to have them.

    Raises:
        TreeDamagedError: the tile, or part of it, is missing.
    """
    tiles = await read_tiles(connection, [(tile.level, tile.index)])
    return _hashes(tiles, TileRange(tile.level, tile.index, 0, tile.width))


def _hashes(tiles: Tiles, tile_range: TileRange) -> bytes:
    tile = tiles.get((tile_range.level, tile_range.index), b"")
    hashes = tile[tile_range.start * HASH_BYTES : tile_range.stop * HASH_BYTES]
    if len(hashes) != (tile_range.stop - tile_range.start) * HASH_BYTES:
        raise TreeDamagedError(f"tile {tile_range.index} of level {tile_range.level}, or part of it, is missing")
    return hashes


async def read_root(connection: Connection, size: int) -> bytes:
    """Compute the root of the stored tree at a size; the sealed tree must be at least as large.

    Raises:
        TreeDamagedError: a tile is missing.
    """
    (root,) = await read_subtrees(connection, [root_nodes(size)])
    return root
