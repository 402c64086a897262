"""Append leaf hashes to a Merkle tree: which tiles change, and the new root. Pure.

The state needed to append is the tree's right edge: the partial tile of each level, at most 255 hashes of 32 bytes.
Appending costs about one hash computation per leaf, and the root at most 255 per level.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ledger.audit.merkle import EMPTY_ROOT, HASH_BYTES, parent_hashes, root_of
from ledger.audit.tiles import TILE_BYTES, TILE_HEIGHT, edge_tiles


class RightEdge(msgspec.Struct, frozen=True):
    """The right edge of a tree of `size` leaves: its partial tiles by level, empty if a level has none."""

    size: int = 0
    tiles: tuple[bytes, ...] = ()

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        # The leaves to the right of a level's partial tile form one more, incomplete node of that level.
        right = b""
        for tile in self.tiles:
            right = root_of(tile + right) if tile else right
        return right or EMPTY_ROOT


class AppendResult(NamedTuple):
    """The tiles that have new hashes, whole, by level and index; and the right edge after appending."""

    tiles: dict[tuple[int, int], bytes]
    edge: RightEdge


def right_edge_from_tiles(size: int, tiles: Mapping[tuple[int, int], bytes]) -> RightEdge:
    """Return the right edge of a stored tree.

    Args:
        size: the tree's number of leaves.
        tiles: at least those that `edge_tiles(size)` lists, by level and index. A tile may have grown since the tree
            had this size: the hashes after that are ignored.

    Raises:
        KeyError: a tile is missing.
        ValueError: a tile is too short.
    """
    by_level = [b""] * -(-size.bit_length() // TILE_HEIGHT)
    for tile in edge_tiles(size):
        length = tile.width * HASH_BYTES
        hashes = tiles[tile.level, tile.index][:length]
        if len(hashes) != length:
            raise ValueError(f"tile {tile.index} of level {tile.level} has {len(hashes)} bytes, not {length}")
        by_level[tile.level] = hashes
    return RightEdge(size, tuple(by_level))


def append_leaves(edge: RightEdge, leaves: bytes) -> AppendResult:
    """Append leaf hashes (32 bytes each, concatenated). Memory use is proportional: append a long run in chunks."""
    assert len(leaves) % HASH_BYTES == 0
    changed: dict[tuple[int, int], bytes] = {}
    by_level = list(edge.tiles)
    new, level = leaves, 0
    while new:
        if level == len(by_level):
            by_level.append(b"")
        hashes = by_level[level] + new
        first = edge.size >> TILE_HEIGHT * level + TILE_HEIGHT
        for offset in range(0, len(hashes), TILE_BYTES):
            changed[level, first + offset // TILE_BYTES] = hashes[offset : offset + TILE_BYTES]
        full = len(hashes) - len(hashes) % TILE_BYTES
        by_level[level] = hashes[full:]
        new, level = _tile_roots(hashes[:full]), level + 1
    return AppendResult(changed, RightEdge(edge.size + len(leaves) // HASH_BYTES, tuple(by_level)))


def _tile_roots(hashes: bytes) -> bytes:
    """Return the root of each full tile, hashing all tiles together level by level: fewer, longer runs are faster."""
    assert len(hashes) % TILE_BYTES == 0
    for _ in range(TILE_HEIGHT):
        hashes = parent_hashes(hashes)
    return hashes
