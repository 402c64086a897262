"""What was sealed against what the database holds now: every event, the tree over them, and the signature."""

from typing import TYPE_CHECKING

from ledger.audit import tree_store
from ledger.audit.merkle import HASH_BYTES
from ledger.audit.note import NoteError, Verifier, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError
from ledger.audit.signing_files import LocalCheckpoint
from ledger.audit.tiles import TILE_WIDTH
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.database import Connection
from ledger.log.read import read_head

if TYPE_CHECKING:
    pass

CHUNK_EVENTS = 16_384

POSITION_LEAVES = f"""
SELECT position, {tree_store.LEAF} AS leaf FROM ledger.events WHERE position > $1 AND position <= $2
"""  # noqa: S608 (fixed texts)


async def faults_of_seal(connection: Connection, kept: LocalCheckpoint | None, shown_max: int) -> list[str]:
    """Hash every sealed event anew and grow the tree from them, inside the caller's snapshot.

    Args:
        kept: what is known outside the database, the checkpoint's signature verified.

    Returns:
        a sentence a fault, at most so many of a kind. Empty: the events are, byte for byte, those that were signed.
    """
    try:
        sealed = await tree_store.read_sealed(connection)
    except tree_store.TreeDamagedError as error:
        return [str(error)]
    return await _Check(connection, sealed, await read_head(connection), kept, shown_max).faults()


class _Told:
    """Faults of a kind: the first in words, the rest as a number."""

    def __init__(self, shown_max: int) -> None:
        self.count = 0
        self._shown_max = shown_max
        self._shown: list[str] = []

    def add(self, fault: str) -> None:
        self.count += 1
        if self.count <= self._shown_max:
            self._shown.append(fault)

    def sentences(self) -> list[str]:
        more = self.count - len(self._shown)
        return [*self._shown, f"{more:,} more of these"] if more else self._shown


class _Check:
    def __init__(
        self,
        connection: Connection,
        sealed: tree_store.Sealed,
        head: int,
        kept: LocalCheckpoint | None,
        shown_max: int,
    ) -> None:
        self._connection = connection
        self._sealed = sealed
        self._head = head
        self._faults = _faults_of_signature(sealed, kept)
        self._signed = {sealed.size: [(sealed.root, "in the database")]}
        if kept is not None and kept.checkpoint is not None:
            outside = (kept.checkpoint.root, "by the checkpoint kept outside it")
            self._signed.setdefault(kept.checkpoint.size, []).append(outside)
        self._wrong_events = _Told(shown_max)
        self._wrong_tiles = _Told(shown_max)

    async def faults(self) -> list[str]:
        longest = max(self._signed)
        if longest > self._head:
            missing = longest - self._head
            self._faults.append(
                f"{longest:,} events were signed, the log has {self._head:,}: the last {missing:,} are missing"
            )
        edge = RightEdge()
        is_as_sealed = False
        for end in sorted({min(size, self._head) for size in self._signed}):
            edge = await self._grow(edge, end)
            for root, where in self._signed.get(end, ()):
                if edge.root != root:
                    self._faults.append(f"the first {end:,} events do not give the root that was signed, {where}")
                elif end == self._sealed.size:
                    is_as_sealed = True
        # Where the events give the root, wrong hashes in tiles are the tiles' fault.
        blamed = self._wrong_tiles if is_as_sealed or not self._wrong_events.count else self._wrong_events
        return self._faults + blamed.sentences()

    async def _grow(self, edge: RightEdge, end: int) -> RightEdge:
        while edge.size < end:
            after, until = edge.size, min(end, edge.size + CHUNK_EVENTS)
            leaves = await self._read_what_there_is(after, until)
            tiles, edge = append_leaves(edge, leaves)
            if after < self._sealed.size:
                await self._compare(after, leaves, tiles)
        return edge

    async def _read_what_there_is(self, after: int, until: int) -> bytes:
        """The leaf hashes of these positions; zeros where an event is missing."""
        try:
            return await tree_store.read_leaves(self._connection, after, until)
        except tree_store.TreeDamagedError:
            rows = await self._connection.fetch(POSITION_LEAVES, after, until)
            found = {row["position"]: row["leaf"] for row in rows}
            return b"".join(found.get(position, bytes(HASH_BYTES)) for position in range(after + 1, until + 1))

    async def _compare(self, after: int, leaves: bytes, tiles: tree_store.Tiles) -> None:
        """Hold the stored tiles against those that a chunk of events gives."""
        stored = await tree_store.read_tiles(self._connection, tiles)
        for (level, index), tile in tiles.items():
            held = stored.get((level, index), b"")
            # A chunk's last tiles may be longer by now.
            if held.startswith(tile):
                continue
            self._wrong_tiles.add(f"tile {index} of level {level} is not what the events give")
            if level == 0:
                self._compare_leaves(after, leaves, index * TILE_WIDTH, held)

    def _compare_leaves(self, after: int, leaves: bytes, first: int, held: bytes) -> None:
        until = min(after + len(leaves) // HASH_BYTES, first + TILE_WIDTH)
        for leaf_index in range(max(after, first), until):
            leaf = _hash_at(leaves, leaf_index - after)
            if leaf != _hash_at(held, leaf_index - first):
                what = "is not what was sealed" if leaf != bytes(HASH_BYTES) else "was sealed, and is missing"
                self._wrong_events.add(f"the event at position {leaf_index + 1} {what}")


def _hash_at(hashes: bytes, index: int) -> bytes:
    return hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]


def _faults_of_signature(sealed: tree_store.Sealed, kept: LocalCheckpoint | None) -> list[str]:
    """Hold the stored checkpoint against its own signature, and its key against the one that is here."""
    if sealed.note is None or sealed.verifier_key is None:
        return ["the log is sealed, but its signed checkpoint is gone"] if sealed.size else []
    faults = []
    if kept is not None and sealed.verifier_key != kept.verifier.text:
        faults.append(f"the log is sealed with the key {sealed.verifier_key}, the key here is {kept.verifier.text}")
    try:
        verifier = Verifier.parse(sealed.verifier_key)
        checkpoint = Checkpoint.parse(open_note(sealed.note, [verifier]))
    except (NoteError, CheckpointError) as error:
        return [*faults, f"the stored checkpoint is not what was signed: {error}"]
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (sealed.origin, sealed.size, sealed.root):
        faults.append(
            f"the signed checkpoint is of {checkpoint.size:,} events of {checkpoint.origin}, the stored tree of "
            f"{sealed.size:,} events of {sealed.origin}, or it has another root"
        )
    return faults
