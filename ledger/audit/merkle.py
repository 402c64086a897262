"""RFC 6962 Merkle tree: hashes, roots, inclusion and consistency proofs, RFC 9162 verifiers. Pure.

A proof is computed in two steps, so that the caller can fetch hashes in between from any kind of storage:
`root_nodes`, `inclusion_nodes` and `consistency_nodes` list the complete subtrees that are needed, and `combine`
computes one hash from them. A run of hashes is one `bytes` of 32 bytes each, which is how tiles store them.

`leaf_hash`, `verify_inclusion` and `verify_consistency` are also for auditors: `docs/guides/auditors.md` shows how.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from ledger.domain.errors import LedgerError

HASH_BYTES = 32

EMPTY_ROOT = sha256().digest()
"""The root of a tree without leaves (RFC 6962, section 2.1)."""

_LEAF_PREFIX = b"\x00"
_NODE_PREFIX = b"\x01"


class ProofError(LedgerError, ValueError):
    """The proof does not show what it claims."""


class Subtree(msgspec.Struct, frozen=True):
    """The complete subtree over the leaves [index << level, (index + 1) << level)."""

    level: int
    index: int


def leaf_hash(entry: bytes) -> bytes:
    """Return the leaf hash of a log entry."""
    return sha256(_LEAF_PREFIX + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node from the hashes of its children."""
    return sha256(_NODE_PREFIX + left + right).digest()


def parent_hashes(hashes: bytes) -> bytes:
    """Return the hashes one level up: a node hash for each pair, and an unpaired last hash unchanged."""
    # Sealing spends its time here. Copying a hash object that has read the prefix takes half as long as a new one.
    copy = sha256(_NODE_PREFIX).copy
    nodes = []
    paired = len(hashes) - len(hashes) % (2 * HASH_BYTES)
    for start in range(0, paired, 2 * HASH_BYTES):
        node = copy()
        node.update(hashes[start : start + 2 * HASH_BYTES])
        nodes.append(node.digest())
    nodes.append(hashes[paired:])
    return b"".join(nodes)


def root_of(hashes: bytes) -> bytes:
    """Return the root of a tree from its leaf hashes, or of any subtree from the hashes of one of its levels."""
    assert len(hashes) % HASH_BYTES == 0
    while len(hashes) > HASH_BYTES:
        hashes = parent_hashes(hashes)
    return hashes or EMPTY_ROOT


def combine(subtrees: Sequence[bytes]) -> bytes:
    """Return the hash over neighbouring complete subtrees, given largest first, as the functions below list them."""
    if not subtrees:
        return EMPTY_ROOT
    combined = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        combined = node_hash(left, combined)
    return combined


def root_nodes(size: int) -> list[Subtree]:
    """Return the complete subtrees that `combine` to the root of a tree of `size` leaves."""
    return _complete_subtrees(0, size)


def inclusion_nodes(leaf_index: int, size: int) -> list[list[Subtree]]:
    """Return, for each hash of an inclusion proof, the subtrees that `combine` to it (RFC 6962, section 2.1.1).

    Raises:
        ProofError: the tree has no such leaf.
    """
    _require_leaf(leaf_index, size)
    siblings = []
    begin, end = 0, size
    while end - begin > 1:
        middle = _split_point(begin, end)
        if leaf_index < middle:
            siblings.append(_complete_subtrees(middle, end))
            end = middle
        else:
            siblings.append(_complete_subtrees(begin, middle))
            begin = middle
    return siblings[::-1]


def consistency_nodes(old_size: int, new_size: int) -> list[list[Subtree]]:
    """Return, for each hash of a consistency proof, the subtrees that `combine` to it (RFC 6962, section 2.1.2).

    The proof is empty if the sizes are equal, and if the old tree is empty: every tree extends the empty one.

    Raises:
        ProofError: the old tree is larger than the new one.
    """
    _require_order(old_size, new_size)
    if old_size == 0:
        return []
    hashes = []
    begin, end = 0, new_size
    while old_size < end:
        middle = _split_point(begin, end)
        if old_size <= middle:
            hashes.append(_complete_subtrees(middle, end))
            end = middle
        else:
            hashes.append(_complete_subtrees(begin, middle))
            begin = middle
    # If the old tree is a complete subtree of the new one, the verifier knows its hash already.
    if begin > 0:
        hashes.append(_complete_subtrees(begin, end))
    return hashes[::-1]


def verify_inclusion(leaf: bytes, leaf_index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that a leaf is in a tree, at its index (RFC 9162, section 2.1.3.2).

    Args:
        leaf: the leaf hash (`leaf_hash` of the entry).
        leaf_index: counts from 0; the event at position n is leaf n - 1.
        size: the tree's number of leaves.
        proof: sibling hashes from the leaf up to the root.
        root: the root of a checkpoint whose signature was verified.

    Raises:
        ProofError: the proof does not show it.
    """
    _require_leaf(leaf_index, size)
    _check_lengths([leaf, root, *proof])
    # RFC 9162 calls these fn and sn: the indexes, at the current level, of the node and of the last node.
    node, last = leaf_index, size - 1
    computed = leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            node, last = _skip_levels_without_sibling(node, last)
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if computed != root:
        raise ProofError(f"leaf {leaf_index} is not in the tree of {size} leaves with this root")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the new tree is the old one with leaves appended (RFC 9162, section 2.1.4.2).

    Args:
        old_size: the earlier checkpoint's number of leaves.
        new_size: the later checkpoint's number of leaves.
        old_root: the earlier checkpoint's root.
        new_root: the later checkpoint's root.
        proof: the hashes of the consistency proof, in order.

    Raises:
        ProofError: the proof does not show it.
    """
    _require_order(old_size, new_size)
    _check_lengths([old_root, new_root, *proof])
    if old_size in (0, new_size):
        _verify_trivial_consistency(old_size, new_size, old_root, new_root, proof)
        return
    # A complete old tree is a subtree of the new one, so the proof leaves out its hash.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise ProofError("the consistency proof is too short")
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_computed = new_computed = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
            node, last = _skip_levels_without_sibling(node, last)
        else:
            new_computed = node_hash(new_computed, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    if old_computed != old_root or new_computed != new_root:
        raise ProofError(f"the tree of {new_size} leaves does not extend the tree of {old_size} leaves")


def _verify_trivial_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    if proof:
        raise ProofError("the consistency proof is too long")
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise ProofError("this is not the root of an empty tree")
    if old_size == new_size and old_root != new_root:
        raise ProofError(f"two different trees of {new_size} leaves: the log has been forked")


def _require_leaf(leaf_index: int, size: int) -> None:
    if not 0 <= leaf_index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {leaf_index}")


def _require_order(old_size: int, new_size: int) -> None:
    if not 0 <= old_size <= new_size:
        raise ProofError(f"a tree of {new_size} leaves cannot extend one of {old_size}")


def _check_lengths(hashes: Sequence[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofError(f"every hash must have {HASH_BYTES} bytes")


def _skip_levels_without_sibling(node: int, last: int) -> tuple[int, int]:
    """Go up until the node has a left sibling: a node without a right sibling has the same hash one level up."""
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _split_point(begin: int, end: int) -> int:
    """Return the index at which RFC 6962 splits a range: `begin` plus the largest power of two below its length."""
    return begin + (1 << (end - begin - 1).bit_length() - 1)


def _complete_subtrees(begin: int, end: int) -> list[Subtree]:
    """Return the complete subtrees over a range, largest first; `begin` must be a multiple of the first one's size."""
    subtrees = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        subtrees.append(Subtree(level, begin >> level))
        begin += 1 << level
    return subtrees
