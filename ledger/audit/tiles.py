"""The tiles that the tree is served in, as C2SP tlog-tiles v1.0.0 has them: their paths, widths and contents.

A tile holds up to 256 neighbouring hashes of every eighth level of the tree; the hashes between are computed from them.
The tile at level L and index N holds those of the complete subtrees over 256**L leaves each, from N * 256 on. An entry
bundle holds the entries of a tile at level 0.
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
"""An entry's length is written in two bytes."""


class TilePathError(LedgerError, ValueError):
    """This is not the path of a tile or an entry bundle."""


class BundleError(LedgerError, ValueError):
    """This is not an entry bundle."""


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
    """Hashes start to stop, exclusive, of a tile."""

    level: int
    index: int
    start: int
    stop: int


def tile_path(level: int, index: int, width: int) -> str:
    """Where a tile is served below the log's prefix: `tile/0/x001/x234/067.p/5`."""
    return f"tile/{level}/{_index_path(index, width)}"


def bundle_path(index: int, width: int) -> str:
    """Where an entry bundle is served below the log's prefix: `tile/entries/x001/x234/067.p/5`."""
    return f"tile/entries/{_index_path(index, width)}"


def _index_path(index: int, width: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    outer = "".join(f"x{group}/" for group in groups[:-1])
    return outer + groups[-1] + (f".p/{width}" if width < TILE_WIDTH else "")


# Seven groups of digits hold every index of a tree that a 64-bit position can count.
_PATH = re.compile(
    r"(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?!x000)(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)
_LEVEL_MAX = 63


def parse_path(path: str) -> Tile | Bundle:
    """Read what follows `tile/`: `<L>/<N>[.p/<W>]` is a tile, `entries/<N>[.p/<W>]` an entry bundle.

    There is one way to write each path; whether the log holds it is another question (`tile_width`).

    Raises:
        TilePathError: it is written in any other way.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise TilePathError(f"{path!r} is not <L>/<N>[.p/<W>] or entries/<N>[.p/<W>], such as 0/x001/234.p/5")
    index = int(re.sub("[x/]", "", found["index"]))
    width = int(found["width"] or TILE_WIDTH)
    if found["width"] and width >= TILE_WIDTH:
        raise TilePathError(f"a partial tile has a width of 1 to {TILE_WIDTH - 1}, not {width}")
    if found["level"] == "entries":
        return Bundle(index, width)
    level = int(found["level"])
    if level > _LEVEL_MAX:
        raise TilePathError(f"a tile has a level of 0 to {_LEVEL_MAX}, not {level}")
    return Tile(level, index, width)


def tile_width(level: int, index: int, size: int) -> int:
    """How many hashes of a tile (at level 0 also entries of a bundle) a tree of `size` leaves has, 0 to 256.

    The tile can be served in every width from 1 to this; at 0 there is none.
    """
    return min(TILE_WIDTH, max(0, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH))


def edge_tiles(size: int) -> list[Tile]:
    """The partial tiles of a tree, the lowest level first; at most one a level."""
    levels = range(-(-size.bit_length() // TILE_HEIGHT))
    counts = [size >> TILE_HEIGHT * level for level in levels]
    tiles = [Tile(level, count // TILE_WIDTH, count % TILE_WIDTH) for level, count in enumerate(counts)]
    return [tile for tile in tiles if tile.width]


def locate(subtree: Subtree) -> TileRange:
    """Where the hash of a complete subtree is found: it is the root (`merkle.root_of`) of the hashes in this range."""
    level, above = divmod(subtree.level, TILE_HEIGHT)
    index, start = divmod(subtree.index << above, TILE_WIDTH)
    return TileRange(level, index, start, start + (1 << above))


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Write an entry bundle: each entry after its length in two bytes, big-endian.

    Raises:
        BundleError: an entry is longer than 65,535 bytes.
    """
    parts = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise BundleError(f"an entry has at most {ENTRY_BYTES_MAX} bytes, not {len(entry)}")
        parts += [len(entry).to_bytes(2, "big"), entry]
    return b"".join(parts)


def decode_bundle(bundle: bytes) -> list[bytes]:
    """Read the entries of a bundle.

    Raises:
        BundleError: it ends within an entry, or holds none or more than 256.
    """
    entries: list[bytes] = []
    start = 0
    while start < len(bundle):
        end = start + 2 + int.from_bytes(bundle[start : start + 2], "big")
        if end > len(bundle):
            raise BundleError(f"the bundle ends within entry {len(entries)}")
        entries.append(bundle[start + 2 : end])
        start = end
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise BundleError(f"a bundle holds 1 to {TILE_WIDTH} entries, not {len(entries)}")
    return entries
