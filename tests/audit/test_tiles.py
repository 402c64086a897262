"""Tiles and entry bundles: paths, widths, and the encoding of bundles."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit.merkle import Subtree, leaf_hash
from ledger.audit.tiles import (
    Bundle,
    BundleError,
    Tile,
    TilePathError,
    TileRange,
    bundle_path,
    decode_bundle,
    edge_tiles,
    encode_bundle,
    locate,
    parse_path,
    tile_path,
    tile_width,
)
from tests.audit import naive

levels = st.integers(0, 63)
indexes = st.integers(0, 2**63)
widths = st.integers(1, 256)


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        # The example of tlog-tiles: index 1234067 is x001/x234/067.
        (0, 1234067, 256, "tile/0/x001/x234/067"),
        (0, 1234067, 5, "tile/0/x001/x234/067.p/5"),
        (0, 0, 256, "tile/0/000"),
        (0, 0, 1, "tile/0/000.p/1"),
        (2, 999, 255, "tile/2/999.p/255"),
        (63, 1000, 256, "tile/63/x001/000"),
        (1, 1000000, 256, "tile/1/x001/x000/000"),
    ],
)
def test_tile_paths_are_those_of_tlog_tiles(level: int, index: int, width: int, path: str) -> None:
    assert tile_path(level, index, width) == path
    assert parse_path(path.removeprefix("tile/")) == Tile(level, index, width)


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [(0, 256, "tile/entries/000"), (1234067, 8, "tile/entries/x001/x234/067.p/8")],
)
def test_bundle_paths_are_those_of_tlog_tiles(index: int, width: int, path: str) -> None:
    assert bundle_path(index, width) == path
    assert parse_path(path.removeprefix("tile/")) == Bundle(index, width)


@given(levels, indexes, widths)
def test_every_tile_and_bundle_path_can_be_parsed(level: int, index: int, width: int) -> None:
    assert parse_path(tile_path(level, index, width).removeprefix("tile/")) == Tile(level, index, width)
    assert parse_path(bundle_path(index, width).removeprefix("tile/")) == Bundle(index, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/",
        "/000",
        "0/0",
        "0/00",
        "0/0000",
        "0/1234",
        "0/abc",
        "0/-01",
        "0/+01",
        "0/ 01",
        "0/000 ",
        "0/000\n",
        "0/000/",
        "0//000",
        "0/x001",
        "0/x001/",
        "0/x001/x234",
        "0/001/234",
        "0/X001/234",
        "0/x01/234",
        "0/x0011/234",
        # An extra group in front: index 67 has only one path.
        "0/x000/067",
        "0/x000/x001/067",
        "0/" + "x001/" * 7 + "000",
        "00/000",
        "01/000",
        "64/000",
        "99/000",
        "100/000",
        "-1/000",
        "data/000",
        "Entries/000",
        "entries",
        "entries/",
        "entries/0",
        "entries/x000/001",
        "0/000.p",
        "0/000.p/",
        "0/000.p/0",
        "0/000.p/00",
        "0/000.p/01",
        "0/000.p/256",
        "0/000.p/257",
        "0/000.p/999",
        "0/000.p/1000",
        "0/000.p/-1",
        "0/000.p/1/",
        "0/000.p/1.p/1",
        "0/000p/1",
        "0/000.P/1",
        "entries/000.p/0",
        "entries/000.p/256",
        "tile/0/000",
        "8/0/000",
        "../0/000",
        "0/٠٠٠",
        "0/000.p/٣",
        "٠/000",
    ],
)
def test_a_malformed_path_is_refused(path: str) -> None:
    with pytest.raises(TilePathError):
        parse_path(path)


@given(st.from_regex(re.compile(r"(entries|[0-9x]{1,3})/[0-9x./p]{1,12}", re.ASCII), fullmatch=True))
def test_every_accepted_path_is_the_only_spelling(path: str) -> None:
    try:
        found = parse_path(path)
    except TilePathError:
        return

    if isinstance(found, Tile):
        assert tile_path(found.level, found.index, found.width) == f"tile/{path}"
    else:
        assert bundle_path(found.index, found.width) == f"tile/{path}"


def test_a_tree_of_70000_leaves_has_the_tiles_of_the_specification() -> None:
    assert [tile_width(0, index, 70_000) for index in (0, 272, 273, 274)] == [256, 256, 112, 0]
    assert [tile_width(1, index, 70_000) for index in (0, 1, 2)] == [256, 17, 0]
    assert [tile_width(2, index, 70_000) for index in (0, 1)] == [1, 0]
    assert tile_width(3, 0, 70_000) == 0
    assert edge_tiles(70_000) == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537])
def test_a_tree_has_exactly_the_tiles_that_its_size_requires(size: int) -> None:
    tiles = naive.tiles(naive.leaves(size))

    widths_by_place = {
        (level, index): tile_width(level, index, size)
        for level in range(4)
        for index in range(300)
        if tile_width(level, index, size)
    }

    assert widths_by_place == {place: len(hashes) // 32 for place, hashes in tiles.items()}
    assert edge_tiles(size) == [
        Tile(level, index, width) for (level, index), width in sorted(widths_by_place.items()) if width < 256
    ]


@pytest.mark.parametrize(
    ("subtree", "tile_range"),
    [
        (Subtree(0, 0), TileRange(0, 0, 0, 1)),
        (Subtree(0, 257), TileRange(0, 1, 1, 2)),
        (Subtree(3, 31), TileRange(0, 0, 248, 256)),
        (Subtree(3, 32), TileRange(0, 1, 0, 8)),
        (Subtree(7, 1), TileRange(0, 0, 128, 256)),
        # For level 8 the tile below would also do, but the tile above stores the hash itself.
        (Subtree(8, 0), TileRange(1, 0, 0, 1)),
        (Subtree(9, 128), TileRange(1, 1, 0, 2)),
        (Subtree(16, 3), TileRange(2, 0, 3, 4)),
    ],
)
def test_a_subtree_is_found_in_the_tile_at_or_below_its_level(subtree: Subtree, tile_range: TileRange) -> None:
    assert locate(subtree) == tile_range


def test_a_bundle_consists_of_lengths_and_entries() -> None:
    assert encode_bundle([b"", b"abc", b"x" * 258]) == b"\0\0" + b"\0\3abc" + b"\1\2" + b"x" * 258


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_every_bundle_can_be_decoded(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries)) == entries


def test_the_longest_entry_fits_and_a_longer_one_is_refused() -> None:
    assert decode_bundle(encode_bundle([b"x" * 65_535])) == [b"x" * 65_535]
    with pytest.raises(BundleError, match="65536"):
        encode_bundle([b"x" * 65_536])


def test_a_truncated_bundle_is_refused_at_every_length() -> None:
    bundle = encode_bundle([b"one", b"", b"three"])
    whole = {5, 7, len(bundle)}

    for length in range(len(bundle) + 1):
        if length in whole:
            assert encode_bundle(decode_bundle(bundle[:length])) == bundle[:length]
        else:
            with pytest.raises(BundleError):
                decode_bundle(bundle[:length])


def test_a_bundle_of_more_than_256_entries_is_refused() -> None:
    assert len(decode_bundle(encode_bundle([b"x"] * 256))) == 256
    with pytest.raises(BundleError, match="not 257"):
        decode_bundle(encode_bundle([b"x"] * 257))


def test_every_changed_byte_of_a_bundle_differs_from_its_tile() -> None:
    entries = naive.entries(12)
    bundle, tile = encode_bundle(entries), [leaf_hash(entry) for entry in entries]

    for at in range(len(bundle)):
        changed = bundle[:at] + bytes([bundle[at] ^ 1]) + bundle[at + 1 :]
        try:
            found = [leaf_hash(entry) for entry in decode_bundle(changed)]
        except BundleError:
            continue
        assert found != tile
