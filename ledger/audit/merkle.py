"""The Merkle tree of RFC 6962: hashes, roots, which subtrees make a proof, and the verifiers of RFC 9162.

Everything here is pure. A proof is made in two steps, so that whoever stores the tree may fetch in between and in any
way: `root_nodes`, `inclusion_nodes` and `consistency_nodes` say which complete subtrees are needed, `combine` makes
one hash of them. Many hashes are one blob of 32 bytes each, as tiles hold them.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from ledger.domain.errors import LedgerError

HASH_BYTES = 32

EMPTY_ROOT = sha256().digest()
"""The root of a tree without leaves (RFC 6962, section 2.1)."""

_LEAF = b"\x00"
_NODE = b"\x01"


class ProofError(LedgerError, ValueError):
    """A proof does not show what it claims."""


class Subtree(msgspec.Struct, frozen=True):
    """The complete subtree over the leaves [index << level, (index + 1) << level)."""

    level: int
    index: int


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry of the log."""
    return sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node from the hashes of its children."""
    return sha256(_NODE + left + right).digest()


def parents(hashes: bytes) -> bytes:
    """The hashes one level up: of each pair their node's, and a last one without a partner as it is."""
    # This is where the time of sealing goes. Copying a hash that has read the prefix costs half of making a new one.
    copy = sha256(_NODE).copy
    found = []
    paired = len(hashes) - len(hashes) % (2 * HASH_BYTES)
    for start in range(0, paired, 2 * HASH_BYTES):
        node = copy()
        node.update(hashes[start : start + 2 * HASH_BYTES])
        found.append(node.digest())
    found.append(hashes[paired:])
    return b"".join(found)


def root_of(hashes: bytes) -> bytes:
    """The root of a tree from a blob of its leaf hashes; also that of any subtree from those of one of its levels."""
    assert len(hashes) % HASH_BYTES == 0
    while len(hashes) > HASH_BYTES:
        hashes = parents(hashes)
    return hashes or EMPTY_ROOT


def combine(subtrees: Sequence[bytes]) -> bytes:
    """The hash over neighbouring complete subtrees, the largest first, as the functions below list them."""
    if not subtrees:
        return EMPTY_ROOT
    found = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        found = node_hash(left, found)
    return found


def root_nodes(size: int) -> list[Subtree]:
    """The complete subtrees that `combine` to the root of a tree of `size` leaves."""
    return _cover(0, size)


def inclusion_nodes(leaf_index: int, size: int) -> list[list[Subtree]]:
    """What an inclusion proof is made of: for each of its hashes the subtrees that `combine` to it (RFC 6962, 2.1.1).

    Raises:
        ProofError: the tree has no such leaf.
    """
    if not 0 <= leaf_index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {leaf_index}")
    found = []
    begin, end = 0, size
    while end - begin > 1:
        middle = _middle(begin, end)
        if leaf_index < middle:
            found.append(_cover(middle, end))
            end = middle
        else:
            found.append(_cover(begin, middle))
            begin = middle
    return found[::-1]


def consistency_nodes(old_size: int, new_size: int) -> list[list[Subtree]]:
    """What a consistency proof is made of: for each of its hashes the subtrees that `combine` to it (RFC 6962, 2.1.2).

    The proof is empty where the sizes are equal, and from the empty tree, which is the beginning of every tree.

    Raises:
        ProofError: the old tree is the larger one.
    """
    if not 0 <= old_size <= new_size:
        raise ProofError(f"a tree of {new_size} leaves cannot extend one of {old_size}")
    if old_size == 0:
        return []
    found = []
    begin, end = 0, new_size
    while old_size < end:
        middle = _middle(begin, end)
        if old_size <= middle:
            found.append(_cover(middle, end))
            end = middle
        else:
            found.append(_cover(begin, middle))
            begin = middle
    # Where the old tree is itself a subtree of the new one, the verifier knows its hash already.
    if begin > 0:
        found.append(_cover(begin, end))
    return found[::-1]


def verify_inclusion(leaf: bytes, leaf_index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that a leaf hash is in a tree, at its place (RFC 9162, section 2.1.3.2).

    Raises:
        ProofError: it is not shown.
    """
    if not 0 <= leaf_index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {leaf_index}")
    _check_lengths([leaf, root, *proof])
    place, last = leaf_index, size - 1
    found = leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            place, last = _skip_lone_nodes(place, last)
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if found != root:
        raise ProofError(f"leaf {leaf_index} is not in the tree of {size} leaves with this root")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the new tree is the old one with leaves appended (RFC 9162, section 2.1.4.2).

    Raises:
        ProofError: it is not shown.
    """
    if not 0 <= old_size <= new_size:
        raise ProofError(f"a tree of {new_size} leaves cannot extend one of {old_size}")
    _check_lengths([old_root, new_root, *proof])
    if old_size in (0, new_size):
        _verify_trivial_consistency(old_size, new_size, old_root, new_root, proof)
        return
    # A complete old tree is a subtree of the new one: the proof leaves its hash out.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise ProofError("the consistency proof is too short")
    place, last = old_size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if place & 1 or place == last:
            old_found = node_hash(sibling, old_found)
            new_found = node_hash(sibling, new_found)
            place, last = _skip_lone_nodes(place, last)
        else:
            new_found = node_hash(new_found, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    if old_found != old_root or new_found != new_root:
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


def _check_lengths(hashes: Sequence[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofError(f"every hash must have {HASH_BYTES} bytes")


def _skip_lone_nodes(place: int, last: int) -> tuple[int, int]:
    """A node without a right sibling is its own parent: go up until there is a left one."""
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _middle(begin: int, end: int) -> int:
    """Where RFC 6962 parts a range: after the largest power of two smaller than its length."""
    return begin + (1 << (end - begin - 1).bit_length() - 1)


def _cover(begin: int, end: int) -> list[Subtree]:
    """The complete subtrees over a range that starts where one of them all could start, the largest first."""
    found = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        found.append(Subtree(level, begin >> level))
        begin += 1 << level
    return found
