"""Merkle tree: compared with test vectors, another implementation, and RFC 6962 word for word."""

import pymerkle
import pytest

from ledger.audit import merkle
from ledger.audit.merkle import EMPTY_ROOT, ProofError, Subtree
from tests.audit import naive

SIZE_MAX = 40

# The test vectors of certificate-transparency (merkletree, testonly/constants.go), known to every implementation.
ENTRIES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def combined(nodes: list[list[Subtree]], leaves: list[bytes]) -> list[bytes]:
    """Return the proof: each group of subtrees combined to one hash."""
    return [merkle.combine([subtree_hash(node, leaves) for node in subtrees]) for subtrees in nodes]


def subtree_hash(subtree: Subtree, leaves: list[bytes]) -> bytes:
    covered = leaves[subtree.index << subtree.level : (subtree.index + 1) << subtree.level]
    assert len(covered) == 1 << subtree.level
    return naive.root(covered)


def flips(value: bytes) -> list[bytes]:
    """Return copies of the value, each with another byte changed."""
    return [value[:at] + bytes([value[at] ^ 0x10]) + value[at + 1 :] for at in range(len(value))]


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots_are_computed(size: int) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in ENTRIES[:size]]

    assert merkle.root_of(b"".join(leaves)).hex() == ROOTS[size]
    assert merkle.combine([subtree_hash(node, leaves) for node in merkle.root_nodes(size)]).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_the_published_inclusion_proofs_are_computed_and_verified(index: int, size: int) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in ENTRIES[:size]]

    proof = combined(merkle.inclusion_nodes(index, size), leaves)

    assert [value.hex() for value in proof] == INCLUSION[index, size]
    merkle.verify_inclusion(leaves[index], index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_the_published_consistency_proofs_are_computed_and_verified(old: int, new: int) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in ENTRIES[:new]]

    proof = combined(merkle.consistency_nodes(old, new), leaves)

    assert [value.hex() for value in proof] == CONSISTENCY[old, new]
    merkle.verify_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), proof)


def test_another_implementation_computes_the_same_roots_and_inclusion_proofs() -> None:
    other = pymerkle.InmemoryTree.init_from_entries(naive.entries(SIZE_MAX), algorithm="sha256")
    leaves = naive.leaves(SIZE_MAX)

    for size in range(1, SIZE_MAX + 1):
        root = merkle.root_of(b"".join(leaves[:size]))
        for index in range(size):
            # That library numbers leaves from 1, and its proof starts with the leaf itself.
            expected = other.prove_inclusion(index + 1, size)
            pymerkle.verify_inclusion(leaves[index], root, expected)
            assert combined(merkle.inclusion_nodes(index, size), leaves) == expected.path[1:]


@pytest.mark.parametrize("size", range(SIZE_MAX + 1))
def test_roots_and_proofs_are_those_of_the_rfc(size: int) -> None:
    leaves = naive.leaves(size)
    root = naive.root(leaves)

    assert merkle.root_of(b"".join(leaves)) == root
    assert merkle.combine([subtree_hash(node, leaves) for node in merkle.root_nodes(size)]) == root
    for index in range(size):
        proof = combined(merkle.inclusion_nodes(index, size), leaves)
        assert proof == naive.inclusion(index, leaves)
        merkle.verify_inclusion(leaves[index], index, size, proof, root)
    for old in range(1, size + 1):
        proof = combined(merkle.consistency_nodes(old, size), leaves)
        assert proof == naive.consistency(old, leaves)
        merkle.verify_consistency(old, size, naive.root(leaves[:old]), root, proof)


def test_every_tree_extends_the_empty_tree_whose_root_is_fixed() -> None:
    leaves = naive.leaves(5)

    assert merkle.consistency_nodes(0, 5) == []
    merkle.verify_consistency(0, 5, EMPTY_ROOT, naive.root(leaves), [])
    merkle.verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    with pytest.raises(ProofError, match="empty tree"):
        merkle.verify_consistency(0, 5, leaves[0], naive.root(leaves), [])
    with pytest.raises(ProofError, match="empty tree"):
        merkle.verify_consistency(0, 0, leaves[0], leaves[0], [])


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8])
def test_every_changed_byte_of_an_inclusion_proof_is_detected(size: int) -> None:
    leaves = naive.leaves(size)
    root = naive.root(leaves)
    for index in range(size):
        proof = naive.inclusion(index, leaves)

        for changed in flips(leaves[index]):
            with pytest.raises(ProofError):
                merkle.verify_inclusion(changed, index, size, proof, root)
        for changed in flips(root):
            with pytest.raises(ProofError):
                merkle.verify_inclusion(leaves[index], index, size, proof, changed)
        for at, value in enumerate(proof):
            for changed in flips(value):
                with pytest.raises(ProofError):
                    merkle.verify_inclusion(leaves[index], index, size, [*proof[:at], changed, *proof[at + 1 :]], root)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 5), (3, 7), (4, 8), (6, 8), (7, 8)])
def test_every_changed_byte_of_a_consistency_proof_is_detected(old: int, new: int) -> None:
    leaves = naive.leaves(new)
    old_root, new_root = naive.root(leaves[:old]), naive.root(leaves)
    proof = naive.consistency(old, leaves)

    for changed in flips(old_root):
        with pytest.raises(ProofError):
            merkle.verify_consistency(old, new, changed, new_root, proof)
    for changed in flips(new_root):
        with pytest.raises(ProofError):
            merkle.verify_consistency(old, new, old_root, changed, proof)
    for at, value in enumerate(proof):
        for changed in flips(value):
            with pytest.raises(ProofError):
                merkle.verify_consistency(old, new, old_root, new_root, [*proof[:at], changed, *proof[at + 1 :]])


@pytest.mark.parametrize("size", range(1, 20))
def test_an_inclusion_proof_fails_for_another_index_or_number_of_hashes(size: int) -> None:
    leaves = naive.leaves(size)
    root = naive.root(leaves)
    for index in range(size):
        proof = naive.inclusion(index, leaves)

        for other in range(size):
            if other != index:
                with pytest.raises(ProofError):
                    merkle.verify_inclusion(leaves[index], other, size, proof, root)
        for wrong in ([*proof, root], [root, *proof], proof[:-1], proof[1:]):
            if wrong != proof:
                with pytest.raises(ProofError):
                    merkle.verify_inclusion(leaves[index], index, size, wrong, root)


@pytest.mark.parametrize("new", range(1, 20))
def test_a_consistency_proof_with_another_number_of_hashes_fails(new: int) -> None:
    leaves = naive.leaves(new)
    for old in range(1, new + 1):
        proof = naive.consistency(old, leaves)
        old_root, new_root = naive.root(leaves[:old]), naive.root(leaves)

        for wrong in ([*proof, new_root], [new_root, *proof], proof[:-1], proof[1:], []):
            if wrong != proof:
                with pytest.raises(ProofError):
                    merkle.verify_consistency(old, new, old_root, new_root, wrong)


def test_a_proof_for_a_deeper_tree_is_too_long() -> None:
    left, right, third, fourth = naive.leaves(4)
    root = naive.root([left, right, third])
    node = merkle.node_hash

    with pytest.raises(ProofError, match="too long"):
        merkle.verify_inclusion(right, 0, 1, [left], node(left, right))
    proof = [third, fourth, node(left, right)]
    merkle.verify_consistency(3, 4, root, node(node(left, right), node(third, fourth)), proof)
    with pytest.raises(ProofError, match="too long"):
        merkle.verify_consistency(
            3, 4, node(left, root), node(left, node(node(left, right), node(third, fourth))), [*proof, left]
        )


def test_the_root_of_a_smaller_tree_is_not_accepted_for_a_larger_one() -> None:
    leaves = naive.leaves(8)
    small, smaller = naive.root(leaves[:4]), naive.root(leaves[:2])

    with pytest.raises(ProofError, match="too short"):
        merkle.verify_inclusion(leaves[0], 0, 8, naive.inclusion(0, leaves[:4]), small)
    with pytest.raises(ProofError, match="too short"):
        merkle.verify_consistency(2, 8, smaller, small, naive.consistency(2, leaves[:4]))


def test_two_trees_of_one_size_are_reported_as_a_fork() -> None:
    one, other = naive.leaves(2)

    with pytest.raises(ProofError, match="forked"):
        merkle.verify_consistency(9, 9, one, other, [])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_hashes_of_another_length_are_refused(length: int) -> None:
    left, right = naive.leaves(2)
    root = naive.root([left, right])
    wrong = bytes(length)

    for leaf, proof, claimed in ((wrong, [right], root), (left, [wrong], root), (left, [right], wrong)):
        with pytest.raises(ProofError, match="32 bytes"):
            merkle.verify_inclusion(leaf, 0, 2, proof, claimed)
    for old_root, proof, claimed in ((wrong, [right], root), (left, [wrong], root), (left, [right], wrong)):
        with pytest.raises(ProofError, match="32 bytes"):
            merkle.verify_consistency(1, 2, old_root, claimed, proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (0, -1)])
def test_a_leaf_outside_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ProofError, match="has no leaf"):
        merkle.inclusion_nodes(index, size)
    with pytest.raises(ProofError, match="has no leaf"):
        merkle.verify_inclusion(EMPTY_ROOT, index, size, [], EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1)])
def test_a_tree_does_not_extend_a_larger_one(old: int, new: int) -> None:
    with pytest.raises(ProofError, match="cannot extend"):
        merkle.consistency_nodes(old, new)
    with pytest.raises(ProofError, match="cannot extend"):
        merkle.verify_consistency(old, new, EMPTY_ROOT, EMPTY_ROOT, [])
