"""Reference Merkle tree: RFC 6962, section 2.1, word for word. Recursive, slow, to compare with."""

import hashlib
from collections.abc import Sequence

Hashes = Sequence[bytes]


def entries(size: int) -> list[bytes]:
    """Return distinct entries for a tree of this size."""
    return [b"entry %d" % number for number in range(size)]


def leaves(size: int) -> list[bytes]:
    """Return the leaf hashes of `entries(size)`."""
    return leaf_hashes(entries(size))


def leaf_hashes(entries: Sequence[bytes]) -> list[bytes]:
    """Return the leaf hashes of these entries."""
    return [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def root(d: Hashes) -> bytes:
    """MTH(D[n])"""
    if not d:
        return hashlib.sha256().digest()
    if len(d) == 1:
        return d[0]
    k = _split(len(d))
    return _node(root(d[:k]), root(d[k:]))


def inclusion(m: int, d: Hashes) -> list[bytes]:
    """PATH(m, D[n])"""
    if len(d) == 1:
        return []
    k = _split(len(d))
    if m < k:
        return [*inclusion(m, d[:k]), root(d[k:])]
    return [*inclusion(m - k, d[k:]), root(d[:k])]


def consistency(m: int, d: Hashes, complete: bool = True) -> list[bytes]:
    """PROOF(m, D[n]), which is SUBPROOF(m, D[n], true)"""
    if m == len(d):
        return [] if complete else [root(d)]
    k = _split(len(d))
    if m <= k:
        return [*consistency(m, d[:k], complete), root(d[k:])]
    return [*consistency(m - k, d[k:], False), root(d[:k])]


def tiles(d: Hashes) -> dict[tuple[int, int], bytes]:
    """Return every tile of tlog-tiles by level and index: up to 256 hashes of subtrees over 256**level leaves."""
    tiles_by_place = {}
    level, hashes = 0, list(d)
    while hashes:
        for start in range(0, len(hashes), 256):
            tiles_by_place[level, start // 256] = b"".join(hashes[start : start + 256])
        full = len(hashes) // 256
        hashes = [root(hashes[n * 256 : (n + 1) * 256]) for n in range(full)]
        level += 1
    return tiles_by_place
