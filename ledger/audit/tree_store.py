"""The tree as the database holds it: leaf hashes from the events, tiles, and how far the log is sealed."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from ledger.audit.merkle import HASH_BYTES, Subtree, combine, root_nodes, root_of
from ledger.audit.tiles import Tile, TileRange, edge_tiles, locate
from ledger.audit.tree_growth import RightEdge, right_edge
from ledger.database import Connection
from ledger.domain.errors import LedgerError

if TYPE_CHECKING:
    pass

_JSON = "coalesce('\"' || {0} || '\"', 'null')"
_TIME = """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

ENTRY = f"""
'{{"v":1,"position":' || position || ',"category":' || to_json(category) || ',"stream_id":"' || stream_id
|| '","version":' || version || ',"id":"' || id || '","type":' || to_json(type)
|| ',"schema_version":' || schema_version || ',"occurred_at":"' || {_TIME.format("occurred_at")}
|| '","recorded_at":"' || {_TIME.format("recorded_at")}
|| '","actor":' || to_json(actor) || ',"campaign_id":' || {_JSON.format("campaign_id")}
|| ',"agent_job_id":' || {_JSON.format("agent_job_id")} || ',"correlation_id":' || {_JSON.format("correlation_id")}
|| ',"causation_id":' || {_JSON.format("causation_id")} || ',"data":' || data::text
|| ',"text_commitment":' || {_JSON.format("text_commitment")} || '}}'
"""
"""An event's entry (`entry.entry_of`) in SQL, so that sealing need not carry the events out of the database."""

LEAF = rf"sha256('\x00'::bytea || convert_to({ENTRY}, 'UTF8'))"

LEAVES = f"""
SELECT string_agg({LEAF}, ''::bytea ORDER BY position) FROM ledger.events WHERE position > $1 AND position <= $2
"""  # noqa: S608 (fixed texts)

ENTRIES = f"""
SELECT convert_to({ENTRY}, 'UTF8') FROM ledger.events WHERE position > $1 AND position <= $2 ORDER BY position
"""  # noqa: S608 (fixed texts)

READ_TILES = """
SELECT level, index, hashes FROM ledger.log_tiles
WHERE (level, index) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
"""

WRITE_TILES = """
INSERT INTO ledger.log_tiles (level, index, hashes) SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])
ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes
"""

SEALED = "SELECT size, root, origin, verifier_key, note, sealed_at, refusal FROM ledger.log_checkpoint"
LOCK_SEALED = f"{SEALED} FOR UPDATE SKIP LOCKED"
LOCK_SEALED_WAITING = f"{SEALED} FOR UPDATE"

SEAL = """
UPDATE ledger.log_checkpoint SET size = $1, root = $2, origin = $3, verifier_key = $4, note = $5,
    sealed_at = clock_timestamp(), refusal = NULL
"""

REFUSE = "UPDATE ledger.log_checkpoint SET refusal = $1 WHERE refusal IS DISTINCT FROM $1"

ROW_IS_MISSING = "the row of ledger.log_checkpoint has been deleted"

BEGIN_ANEW = """
DELETE FROM ledger.log_tiles;
DELETE FROM ledger.log_checkpoint;
INSERT INTO ledger.log_checkpoint (size, root) VALUES (0, sha256(''));
"""

STANDING = f"""
SELECT coalesce(sealed.size, 0), sealed.origin, sealed.verifier_key, sealed.sealed_at,
    CASE WHEN sealed.id IS NULL THEN '{ROW_IS_MISSING}' ELSE sealed.refusal END, head.position AS head,
    coalesce(extract(epoch FROM clock_timestamp() - (
        SELECT recorded_at FROM ledger.events WHERE events.position = sealed.size + 1
    )), 0)::float8 AS lag_seconds
FROM ledger.log_head AS head LEFT JOIN ledger.log_checkpoint AS sealed ON true
"""  # noqa: S608 (fixed texts)

LAG_SECONDS_MAX = 60.0
"""Waiting for longer than this, sealing is in trouble: it takes two seconds."""

Tiles = dict[tuple[int, int], bytes]


class TreeDamagedError(LedgerError):
    """The stored tree is not whole."""


class Sealed(msgspec.Struct, frozen=True):
    """How far the log is sealed, and by whom; `refusal` says why the sealer does not sign, while it does not."""

    size: int
    root: bytes
    origin: str | None
    verifier_key: str | None
    note: bytes | None
    sealed_at: datetime | None
    refusal: str | None


class SealStatus(msgspec.Struct, frozen=True):
    """Where sealing stands in the log. `verifier_key` is None while nothing was ever sealed."""

    size: int
    origin: str | None
    verifier_key: str | None
    sealed_at: datetime | None
    refusal: str | None
    head: int
    lag_seconds: float

    def trouble(self) -> str | None:
        """In plain words what is wrong; None where all is well, or where nobody has ever sealed."""
        if self.refusal is not None:
            return f"not sealed past {self.size}: {self.refusal}; see `ledger audit accept-rollback`"
        if self.head < self.size:
            return f"{self.size:,} events are sealed, but the log has {self.head:,}: the end of it is missing"
        if self.verifier_key is not None and self.lag_seconds > LAG_SECONDS_MAX:
            return (
                f"{self.head - self.size} events wait to be sealed since {self.lag_seconds:.0f} s: is a sealer running?"
            )
        return None


async def read_sealed(connection: Connection) -> Sealed:
    """Read how far the log is sealed.

    Raises:
        TreeDamagedError: the database does not know.
    """
    row = await connection.fetchrow(SEALED)
    if row is None:
        raise TreeDamagedError(ROW_IS_MISSING)
    return Sealed(*row)


async def read_seal_status(connection: Connection) -> SealStatus:
    """Read where sealing stands."""
    row = await connection.fetchrow(STANDING)
    assert row is not None
    return SealStatus(*row)


async def read_leaves(connection: Connection, after: int, until: int) -> bytes:
    """The leaf hashes of the events between two positions, as one blob.

    Raises:
        TreeDamagedError: some of them are not there.
    """
    leaves: bytes = await connection.fetchval(LEAVES, after, until) or b""
    if len(leaves) != (until - after) * HASH_BYTES:
        found = len(leaves) // HASH_BYTES
        raise TreeDamagedError(f"there are {found} events at the positions {after + 1} to {until}: some are missing")
    return leaves


async def read_entries(connection: Connection, after: int, until: int) -> list[bytes]:
    """The entries of the events between two positions.

    Raises:
        TreeDamagedError: some of them are not there.
    """
    entries = [row[0] for row in await connection.fetch(ENTRIES, after, until)]
    if len(entries) != until - after:
        raise TreeDamagedError(
            f"there are {len(entries)} events at the positions {after + 1} to {until}: some are missing"
        )
    return entries


async def read_tiles(connection: Connection, wanted: Iterable[tuple[int, int]]) -> Tiles:
    """Read tiles by level and index; those that are not there are left out."""
    places = list(dict.fromkeys(wanted))
    if not places:
        return {}
    rows = await connection.fetch(READ_TILES, [level for level, _ in places], [index for _, index in places])
    return {(row["level"], row["index"]): row["hashes"] for row in rows}


async def write_tiles(connection: Connection, tiles: Mapping[tuple[int, int], bytes]) -> None:
    """Write tiles, new or longer than before."""
    levels, indexes = zip(*tiles, strict=True)
    await connection.execute(WRITE_TILES, levels, indexes, list(tiles.values()))


async def read_edge(connection: Connection, size: int) -> RightEdge:
    """Take up the stored tree at a size.

    Raises:
        TreeDamagedError: a tile is missing.
    """
    tiles = await read_tiles(connection, ((tile.level, tile.index) for tile in edge_tiles(size)))
    try:
        return right_edge(size, tiles)
    except KeyError as error:
        level, index = error.args[0]
        raise TreeDamagedError(f"tile {index} of level {level} is missing") from None
    except ValueError as error:
        raise TreeDamagedError(str(error)) from None


async def read_subtrees(connection: Connection, groups: Iterable[Iterable[Subtree]]) -> list[bytes]:
    """One hash a group of neighbouring complete subtrees, from the stored tiles.

    Raises:
        TreeDamagedError: a tile is missing.
    """
    ranges = [[locate(subtree) for subtree in group] for group in groups]
    tiles = await read_tiles(connection, ((place.level, place.index) for group in ranges for place in group))
    return [combine([root_of(_hashes(tiles, place)) for place in group]) for group in ranges]


async def read_hashes(connection: Connection, tile: Tile) -> bytes:
    """The hashes of a tile that the log has reached.

    Raises:
        TreeDamagedError: they are not there.
    """
    tiles = await read_tiles(connection, [(tile.level, tile.index)])
    return _hashes(tiles, TileRange(tile.level, tile.index, 0, tile.width))


def _hashes(tiles: Tiles, wanted: TileRange) -> bytes:
    found = tiles.get((wanted.level, wanted.index), b"")[wanted.start * HASH_BYTES : wanted.stop * HASH_BYTES]
    if len(found) != (wanted.stop - wanted.start) * HASH_BYTES:
        raise TreeDamagedError(f"tile {wanted.index} of level {wanted.level} is missing, or a part of it")
    return found


async def read_root(connection: Connection, size: int) -> bytes:
    """The root of the stored tree at a size that it has reached.

    Raises:
        TreeDamagedError: a tile is missing.
    """
    (root,) = await read_subtrees(connection, [root_nodes(size)])
    return root
