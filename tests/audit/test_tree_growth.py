"""Appending leaves: the same tiles, roots and proofs whatever the steps."""

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.audit import merkle, tree_growth
from ledger.audit.merkle import Subtree
from ledger.audit.tiles import locate
from ledger.audit.tree_growth import RightEdge, append_leaves, right_edge_from_tiles
from tests.audit import naive

SIZES = [0, 1, 2, 255, 256, 257, 65_536, 65_537]
LEAVES = naive.leaves(66_500)

Tiles = dict[tuple[int, int], bytes]


def joined_leaves(begin: int, end: int) -> bytes:
    return b"".join(LEAVES[begin:end])


def read(tiles: Tiles, subtree: Subtree) -> bytes:
    span = locate(subtree)
    hashes = tiles[span.level, span.index][span.start * 32 : span.stop * 32]
    assert len(hashes) == (span.stop - span.start) * 32
    return merkle.root_of(hashes)


def proof_from(tiles: Tiles, nodes: list[list[Subtree]]) -> list[bytes]:
    return [merkle.combine([read(tiles, subtree) for subtree in subtrees]) for subtrees in nodes]


@pytest.mark.parametrize("size", SIZES)
def test_leaves_appended_at_once_give_the_tiles_and_the_root_of_the_rfc(size: int) -> None:
    tiles, edge = append_leaves(RightEdge(), joined_leaves(0, size))

    assert tiles == naive.tiles(LEAVES[:size])
    assert edge.size == size
    assert edge.root == naive.root(LEAVES[:size])


def test_appending_gives_the_root_that_another_implementation_computes() -> None:
    other = pymerkle.InmemoryTree.init_from_entries(naive.entries(max(SIZES)), algorithm="sha256")

    for size in SIZES[1:]:
        # A proof from that library is valid for its root only.
        pymerkle.verify_inclusion(
            LEAVES[0], append_leaves(RightEdge(), joined_leaves(0, size)).edge.root, other.prove_inclusion(1, size)
        )


@pytest.mark.parametrize("start", SIZES)
@pytest.mark.parametrize("step", [0, 1, 2, 255, 256, 257, 600])
def test_appending_returns_exactly_the_tiles_that_change(start: int, step: int) -> None:
    before = naive.tiles(LEAVES[:start])
    after = naive.tiles(LEAVES[: start + step])

    tiles, edge = append_leaves(right_edge_from_tiles(start, before), joined_leaves(start, start + step))

    assert tiles == {place: hashes for place, hashes in after.items() if before.get(place) != hashes}
    assert edge == right_edge_from_tiles(start + step, after)
    assert edge.root == naive.root(LEAVES[: start + step])


@given(st.sampled_from([0, 200, 500, 65_200]), st.lists(st.integers(0, 300), min_size=1, max_size=4), st.data())
@settings(max_examples=30, deadline=None)
def test_the_tree_and_its_proofs_do_not_depend_on_the_steps(start: int, steps: list[int], data: st.DataObject) -> None:
    tiles, edge = append_leaves(RightEdge(), joined_leaves(0, start))
    sizes = [start]
    for step in steps:
        changed, edge = append_leaves(edge, joined_leaves(edge.size, edge.size + step))
        tiles |= changed
        sizes.append(edge.size)
    size = edge.size

    assert tiles == naive.tiles(LEAVES[:size])
    assert edge.root == naive.root(LEAVES[:size])
    assert merkle.combine([read(tiles, node) for node in merkle.root_nodes(size)]) == edge.root
    old = data.draw(st.sampled_from(sizes))
    old_root = naive.root(LEAVES[:old])
    consistency = proof_from(tiles, merkle.consistency_nodes(old, size))
    merkle.verify_consistency(old, size, old_root, edge.root, consistency)
    if size:
        index = data.draw(st.integers(0, size - 1))
        inclusion = proof_from(tiles, merkle.inclusion_nodes(index, size))
        merkle.verify_inclusion(LEAVES[index], index, size, inclusion, edge.root)


@pytest.mark.parametrize("size", SIZES)
def test_the_right_edge_is_computed_from_stored_tiles_even_if_they_have_grown(size: int) -> None:
    tiles, edge = append_leaves(RightEdge(), joined_leaves(0, size))
    longer = tiles | append_leaves(edge, joined_leaves(size, size + 300)).tiles

    assert right_edge_from_tiles(size, tiles) == edge
    assert right_edge_from_tiles(size, longer) == edge


def test_missing_and_short_tiles_give_no_right_edge() -> None:
    tiles, _ = append_leaves(RightEdge(), joined_leaves(0, 257))

    with pytest.raises(KeyError):
        right_edge_from_tiles(257, {(0, 1): tiles[0, 1]})
    with pytest.raises(ValueError, match="tile 0 of level 1 has 31 bytes, not 32"):
        right_edge_from_tiles(257, tiles | {(1, 0): tiles[1, 0][:-1]})


def test_appending_hashes_only_new_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = append_leaves(RightEdge(), joined_leaves(0, 65_300)).edge
    hashed = 0

    def counting(hashes: bytes) -> bytes:
        nonlocal hashed
        hashed += len(hashes) // 64
        return merkle.parent_hashes(hashes)

    monkeypatch.setattr(tree_growth, "parent_hashes", counting)
    # This step completes the first tile of level 1, and so the most nodes.
    append_leaves(edge, joined_leaves(65_300, 65_536))

    # The last tile of level 0, and the tile of level 1 above it.
    assert hashed == 255 + 255


def test_a_long_run_computes_at_most_one_hash_per_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = 0

    def counting(hashes: bytes) -> bytes:
        nonlocal hashed
        hashed += len(hashes) // 64
        return merkle.parent_hashes(hashes)

    monkeypatch.setattr(tree_growth, "parent_hashes", counting)
    edge = RightEdge()
    for begin in range(0, 66_000, 500):
        edge = append_leaves(edge, joined_leaves(begin, begin + 500)).edge

    assert edge.size == 66_000
    assert hashed <= 66_000
