"""Growing the tree: new leaf hashes in, the tiles that changed and the new root out.

All that is kept of a tree is its right edge: the partial tile of each level, at most 255 hashes of 32 bytes. The cost
is one hash a new leaf, and at most 255 a level for the root.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ledger.audit.merkle import EMPTY_ROOT, HASH_BYTES, parents, root_of
from ledger.audit.tiles import TILE_BYTES, TILE_HEIGHT, edge_tiles


class RightEdge(msgspec.Struct, frozen=True):
    """A tree of `size` leaves, as far as growing it goes: its partial tiles by level, empty where a level has none."""

    size: int = 0
    tiles: tuple[bytes, ...] = ()

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        # What lies to the right of a level's hashes is one node more of that level, though not a complete one.
        right = b""
        for tile in self.tiles:
            right = root_of(tile + right) if tile else right
        return right or EMPTY_ROOT


class Grown(NamedTuple):
    """The tiles with hashes that were not there before, by level and index, whole; and the edge after them."""

    tiles: dict[tuple[int, int], bytes]
    edge: RightEdge


def right_edge(size: int, tiles: Mapping[tuple[int, int], bytes]) -> RightEdge:
    """Take up a tree that was stored.

    Args:
        tiles: at least those that `edge_tiles(size)` lists, by level and index. Where one is longer than it was at
            this size, its beginning counts.

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


def append_leaves(edge: RightEdge, leaves: bytes) -> Grown:
    """Append leaf hashes, given as one blob. Memory grows with the blob: append a long run in parts."""
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
    return Grown(changed, RightEdge(edge.size + len(leaves) // HASH_BYTES, tuple(by_level)))


def _tile_roots(hashes: bytes) -> bytes:
    """The root of each full tile, all of them level by level: fewer and longer runs are faster."""
    assert len(hashes) % TILE_BYTES == 0
    for _ in range(TILE_HEIGHT):
        hashes = parents(hashes)
    return hashes
