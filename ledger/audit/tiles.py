"""Tiles and entry bundles of the Merkle tree (C2SP tlog-tiles v1.0.0): paths, widths and contents.

Only every eighth level of the tree is stored; the hashes of the levels between are computed. The tile at level L and
index N holds up to 256 hashes: those of the complete subtrees over 256**L leaves each, from number N * 256 on. An entry
bundle holds the entries whose leaf hashes are in a tile of level 0.

`tile_path`, `bundle_path` and `decode_bundle` are the client's side, for auditors: `docs/guides/auditors.md` shows how.
"""

import re
from collections.abc import Iterable

import msgspec

from ledger.audit.merkle import HASH_BYTES, Subtree
from ledger.domain.errors import LedgerError

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_BYTES

ENTRY_BYTES_MAX = 0xFFFF
"""A bundle stores an entry's length in two bytes."""


class TilePathError(LedgerError, ValueError):
    """The path names neither a tile nor an entry bundle."""


class BundleError(LedgerError, ValueError):
    """The bytes are not an entry bundle, or an entry is too long for one."""


class Tile(msgspec.Struct, frozen=True):
    """The first `width` hashes (1 to 256) of a tile."""

    level: int
    index: int
    width: int


class Bundle(msgspec.Struct, frozen=True):
    """The first `width` entries (1 to 256) of an entry bundle."""

    index: int
    width: int


class TileRange(msgspec.Struct, frozen=True):
    """The hashes of a tile from `start` to `stop`, exclusive."""

    level: int
    index: int
    start: int
    stop: int


def tile_path(level: int, index: int, width: int) -> str:
    """Return the path of a tile below the log's URL, such as `tile/0/x001/x234/067.p/5`.

    Args:
        level: 0 for leaf hashes, to 63.
        index: of the tile in its level, from 0.
        width: number of hashes, 1 to 256; fewer than 256 is a partial tile.

    Returns:
        The path, which starts with `tile/`.
    """
    return f"tile/{level}/{_index_path(index, width)}"


def bundle_path(index: int, width: int) -> str:
    """Return the path of an entry bundle below the log's URL, such as `tile/entries/x001/x234/067.p/5`."""
    return f"tile/entries/{_index_path(index, width)}"


def _index_path(index: int, width: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    outer = "".join(f"x{group}/" for group in groups[:-1])
    return outer + groups[-1] + (f".p/{width}" if width < TILE_WIDTH else "")


# Seven groups of three digits are enough for every index of a tree with 64-bit positions.
_PATH = re.compile(
    r"(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?!x000)(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_LEVEL_MAX = 63


def parse_path(path: str) -> Tile | Bundle:
    """Parse what follows `tile/`: `<L>/<N>[.p/<W>]` is a tile, `entries/<N>[.p/<W>]` an entry bundle.

    Each path has one spelling. The tree may be too small to have the tile: `tile_width` computes that.

    Raises:
        TilePathError: the path is spelled in any other way.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise TilePathError(f"{path!r} is not <L>/<N>[.p/<W>] or entries/<N>[.p/<W>], such as 0/x001/234.p/5")
    index = int(re.sub("[x/]", "", match["index"]))
    width = int(match["width"] or TILE_WIDTH)
    if match["width"] and width >= TILE_WIDTH:
        raise TilePathError(f"the width of a partial tile must be 1 to {TILE_WIDTH - 1}, not {width}")
    if match["level"] == "entries":
        return Bundle(index, width)
    level = int(match["level"])
    if level > _LEVEL_MAX:
        raise TilePathError(f"the level of a tile must be 0 to {_LEVEL_MAX}, not {level}")
    return Tile(level, index, width)


def tile_width(level: int, index: int, size: int) -> int:
    """Return how many hashes of a tile a tree has; at level 0 also the number of entries in the bundle.

    Args:
        level: 0 for leaf hashes.
        index: of the tile in its level, from 0.
        size: the tree's number of leaves.

    Returns:
        0 to 256. Every width from 1 to this one can be served; 0 means that the tree does not have the tile.
    """
    return min(TILE_WIDTH, max(0, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH))


def edge_tiles(size: int) -> list[Tile]:
    """Return the partial tiles of a tree, lowest level first; there is at most one per level."""
    levels = range(-(-size.bit_length() // TILE_HEIGHT))
    counts = [size >> TILE_HEIGHT * level for level in levels]
    tiles = [Tile(level, count // TILE_WIDTH, count % TILE_WIDTH) for level, count in enumerate(counts)]
    return [tile for tile in tiles if tile.width]


def locate(subtree: Subtree) -> TileRange:
    """Return the range of hashes of which a complete subtree's hash is the root (`merkle.root_of`)."""
    level, above = divmod(subtree.level, TILE_HEIGHT)
    index, start = divmod(subtree.index << above, TILE_WIDTH)
    return TileRange(level, index, start, start + (1 << above))


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return an entry bundle: each entry, preceded by its length in two bytes, big-endian.

    Raises:
        BundleError: an entry is longer than 65,535 bytes.
    """
    parts = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise BundleError(f"an entry must have at most {ENTRY_BYTES_MAX} bytes, not {len(entry)}")
        parts += [len(entry).to_bytes(2, "big"), entry]
    return b"".join(parts)


def decode_bundle(bundle: bytes) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        BundleError: the bundle ends in the middle of an entry, is empty, or has more than 256 entries.
    """
    entries: list[bytes] = []
    start = 0
    while start < len(bundle):
        end = start + 2 + int.from_bytes(bundle[start : start + 2], "big")
        if end > len(bundle):
            raise BundleError(f"the bundle ends in the middle of entry {len(entries)}")
        entries.append(bundle[start + 2 : end])
        start = end
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise BundleError(f"a bundle must have 1 to {TILE_WIDTH} entries, not {len(entries)}")
    return entries
