"""Seal check of `ledger verify`: sealed events, stored tiles and signature against what was signed."""

from ledger.audit import tree_store
from ledger.audit.merkle import HASH_BYTES
from ledger.audit.note import NoteError, Verifier, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError
from ledger.audit.signing_files import LocalCheckpoint
from ledger.audit.tiles import TILE_WIDTH
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.audit.tree_store import CHUNK_EVENTS
from ledger.database import Connection
from ledger.log.read import read_head

LEAF_HASH_BY_POSITION = f"""
SELECT position, {tree_store.LEAF_HASH_SQL} AS leaf FROM ledger.events WHERE position > $1 AND position <= $2
"""  # noqa: S608 (fixed texts)


async def find_seal_faults(connection: Connection, local: LocalCheckpoint | None, shown_max: int) -> list[str]:
    """Hash every sealed event, rebuild the tree from the hashes, and compare it with what is stored and signed.

    Args:
        connection: inside the snapshot to check.
        local: the checkpoint stored outside the database, its signature verified; None if there is none here.
        shown_max: number of faults listed per kind.

    Returns:
        One sentence per fault. Empty if the events are, byte for byte, those that were signed.
    """
    try:
        sealed = await tree_store.read_sealed_tree(connection)
    except tree_store.TreeDamagedError as error:
        return [str(error)]
    return await _SealCheck(connection, sealed, await read_head(connection), local, shown_max).find_faults()


async def read_present_leaf_hashes(connection: Connection, after: int, until: int) -> bytes:
    """Compute the leaf hashes of a range of events, with zeros for missing events.

    Args:
        connection: to the primary or a replica.
        after: position before the first event.
        until: position of the last event.

    Returns:
        The hashes in order, 32 bytes each, concatenated.
    """
    try:
        return await tree_store.read_leaf_hashes(connection, after, until)
    except tree_store.TreeDamagedError:
        rows = await connection.fetch(LEAF_HASH_BY_POSITION, after, until)
        leaves = {row["position"]: row["leaf"] for row in rows}
        return b"".join(leaves.get(position, bytes(HASH_BYTES)) for position in range(after + 1, until + 1))


class _FaultList:
    """Faults of one kind: the first `shown_max` as sentences, the rest counted."""

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


class _SealCheck:
    def __init__(
        self,
        connection: Connection,
        sealed: tree_store.SealedTree,
        head: int,
        local: LocalCheckpoint | None,
        shown_max: int,
    ) -> None:
        self._connection = connection
        self._sealed = sealed
        self._head = head
        self._faults = _find_signature_faults(sealed, local)
        self._signed_roots = {sealed.size: [(sealed.root, "in the database")]}
        if local is not None and local.checkpoint is not None:
            outside = (local.checkpoint.root, "in the signing files")
            self._signed_roots.setdefault(local.checkpoint.size, []).append(outside)
        self._event_faults = _FaultList(shown_max)
        self._tile_faults = _FaultList(shown_max)

    async def find_faults(self) -> list[str]:
        longest = max(self._signed_roots)
        if longest > self._head:
            missing = longest - self._head
            self._faults.append(
                f"{longest:,} events were signed, but the log has {self._head:,}: the last {missing:,} are missing"
            )
        edge = RightEdge()
        gives_sealed_root = False
        for end in sorted({min(size, self._head) for size in self._signed_roots}):
            edge = await self._append_events(edge, end)
            for root, source in self._signed_roots.get(end, ()):
                if edge.root != root:
                    self._faults.append(f"the first {end:,} events do not give the root of the checkpoint {source}")
                elif end == self._sealed.size:
                    gives_sealed_root = True
        # If the events give the sealed root, hashes that differ are faults of the tiles, not of the events.
        shown = self._tile_faults if gives_sealed_root or not self._event_faults.count else self._event_faults
        return self._faults + shown.sentences()

    async def _append_events(self, edge: RightEdge, end: int) -> RightEdge:
        while edge.size < end:
            after, until = edge.size, min(end, edge.size + CHUNK_EVENTS)
            leaves = await read_present_leaf_hashes(self._connection, after, until)
            tiles, edge = append_leaves(edge, leaves)
            if after < self._sealed.size:
                await self._compare_tiles(after, leaves, tiles)
        return edge

    async def _compare_tiles(self, after: int, leaves: bytes, tiles: tree_store.Tiles) -> None:
        """Compare the stored tiles with those computed from a chunk of events."""
        stored_tiles = await tree_store.read_tiles(self._connection, tiles)
        for (level, index), tile in tiles.items():
            stored = stored_tiles.get((level, index), b"")
            # The stored tile at the end of a chunk may have more hashes than the chunk gives.
            if stored.startswith(tile):
                continue
            self._tile_faults.add(f"tile {index} of level {level} differs from the tile that the events give")
            if level == 0:
                self._compare_leaf_hashes(after, leaves, index * TILE_WIDTH, stored)

    def _compare_leaf_hashes(self, after: int, leaves: bytes, first: int, stored: bytes) -> None:
        until = min(after + len(leaves) // HASH_BYTES, first + TILE_WIDTH)
        for leaf_index in range(max(after, first), until):
            leaf = _hash_at(leaves, leaf_index - after)
            if leaf != _hash_at(stored, leaf_index - first):
                fault = "differs from the seal" if leaf != bytes(HASH_BYTES) else "was sealed, but is missing"
                self._event_faults.add(f"the event at position {leaf_index + 1} {fault}")


def _hash_at(hashes: bytes, index: int) -> bytes:
    return hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]


def _find_signature_faults(sealed: tree_store.SealedTree, local: LocalCheckpoint | None) -> list[str]:
    """Check the stored checkpoint against its signature, and its key against the key on this machine."""
    if sealed.note is None or sealed.verifier_key is None:
        return ["the log is sealed, but its signed checkpoint is missing"] if sealed.size else []
    faults = []
    if local is not None and sealed.verifier_key != local.verifier.text:
        faults.append(
            f"the log is sealed with the key {sealed.verifier_key}, but the key here is {local.verifier.text}"
        )
    try:
        verifier = Verifier.parse(sealed.verifier_key)
        checkpoint = Checkpoint.parse(open_note(sealed.note, [verifier]))
    except (NoteError, CheckpointError) as error:
        return [*faults, f"the stored checkpoint is not what was signed: {error}"]
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (sealed.origin, sealed.size, sealed.root):
        faults.append(
            f"the signed checkpoint is of {checkpoint.size:,} events of {checkpoint.origin}, but the stored tree is of "
            f"{sealed.size:,} events of {sealed.origin}, or has another root"
        )
    return faults
