"""What was sealed against what the database holds now: every event, the tree over them, and the signature."""

from typing import TYPE_CHECKING

from ledger.audit import store
from ledger.audit.checkpoint import Checkpoint, CheckpointError
from ledger.audit.growth import RightEdge, grow
from ledger.audit.merkle import HASH_BYTES
from ledger.audit.note import NoteError, Verifier, open_note
from ledger.audit.tiles import TILE_WIDTH
from ledger.log.read import read_head

if TYPE_CHECKING:
    import asyncpg

CHUNK_EVENTS = 16_384

POSITION_LEAVES = f"""
SELECT position, {store.LEAF} AS leaf FROM ledger.events WHERE position > $1 AND position <= $2
"""  # noqa: S608 (fixed texts)


async def faults_of_seal(
    connection: "asyncpg.Connection[asyncpg.Record]", kept: Checkpoint | None, shown_max: int
) -> list[str]:
    """Hash every sealed event anew and grow the tree from them, inside the caller's snapshot.

    Args:
        kept: the last checkpoint as it is kept outside the database, its signature verified.

    Returns:
        a sentence a fault, at most so many. Empty: the events are, byte for byte, those that were signed.
    """
    sealed = await store.read_sealed(connection)
    head = await read_head(connection)
    faults = _faults_of_note(sealed)
    if kept is not None and kept.size > head:
        faults.append(
            f"{kept.size:,} events were signed, the log has {head:,}: the last {kept.size - head:,} are missing"
        )
    edge = RightEdge()
    ends = sorted({size for size in (sealed.size, kept.size if kept else 0) if 0 < size <= head})
    for end in ends:
        while edge.size < end and len(faults) < shown_max:
            after, until = edge.size, min(end, edge.size + CHUNK_EVENTS)
            leaves = await _read_what_there_is(connection, after, until)
            tiles, edge = grow(edge, leaves)
            if edge.size <= sealed.size:
                faults += await _faults_of_tiles(connection, after, leaves, tiles, is_first=not faults)
        for size, root, where in (
            (sealed.size, sealed.root, "in the database"),
            (kept.size if kept else 0, kept.root if kept else b"", "by the checkpoint kept outside it"),
        ):
            if edge.size == size == end and edge.root != root:
                faults.append(f"the first {size:,} events do not give the root that was signed, {where}")
    if len(faults) > shown_max:
        faults = [*faults[:shown_max], "there may be more of these; only the first are told"]
    return faults


def _faults_of_note(sealed: store.Sealed) -> list[str]:
    if sealed.note is None or sealed.verifier_key is None:
        return []
    try:
        checkpoint = Checkpoint.parse(open_note(sealed.note, [Verifier.parse(sealed.verifier_key)]))
    except (NoteError, CheckpointError) as error:
        return [f"the stored checkpoint is not what was signed: {error}"]
    if (checkpoint.size, checkpoint.root) != (sealed.size, sealed.root):
        return [f"the signed checkpoint is of {checkpoint.size:,} events, the stored tree of {sealed.size:,}"]
    return []


async def _read_what_there_is(connection: "asyncpg.Connection[asyncpg.Record]", after: int, until: int) -> bytes:
    """The leaf hashes of these positions; zeros where an event is missing."""
    try:
        return await store.read_leaves(connection, after, until)
    except ValueError:
        found = {row["position"]: row["leaf"] for row in await connection.fetch(POSITION_LEAVES, after, until)}
        return b"".join(found.get(position, bytes(HASH_BYTES)) for position in range(after + 1, until + 1))


async def _faults_of_tiles(
    connection: "asyncpg.Connection[asyncpg.Record]", after: int, leaves: bytes, tiles: store.Tiles, *, is_first: bool
) -> list[str]:
    """Name the events behind wrong tiles of level 0; other tiles only where no event explains them."""
    stored = await store.read_tiles(connection, tiles)
    # A chunk's last tiles may be longer by now.
    wrong = [place for place, tile in tiles.items() if not stored.get(place, b"").startswith(tile)]
    until = after + len(leaves) // HASH_BYTES
    faults = []
    for index in (index for level, index in wrong if level == 0):
        tile = stored.get((0, index), b"")
        for position in range(max(after, index * TILE_WIDTH) + 1, min(until, (index + 1) * TILE_WIDTH) + 1):
            place, at = (position - 1 - index * TILE_WIDTH) * HASH_BYTES, (position - 1 - after) * HASH_BYTES
            leaf = leaves[at : at + HASH_BYTES]
            if leaf != tile[place : place + HASH_BYTES]:
                is_missing = leaf == bytes(HASH_BYTES)
                what = "was sealed, and is missing" if is_missing else "is not what was sealed"
                faults.append(f"the event at position {position} {what}")
    if wrong and not faults and is_first:
        faults = [f"tile {index} of level {level} is not what the events give" for level, index in wrong]
    return faults
