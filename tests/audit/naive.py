"""RFC 6962, section 2.1, word for word: recursive and slow, to hold the real tree against."""

import hashlib
from collections.abc import Sequence

Hashes = Sequence[bytes]


def entries(size: int) -> list[bytes]:
    """Entries that differ, for a tree of this size."""
    return [b"entry %d" % number for number in range(size)]


def leaves(size: int) -> list[bytes]:
    """The leaf hashes of `entries`."""
    return leaf_hashes(entries(size))


def leaf_hashes(written: Sequence[bytes]) -> list[bytes]:
    """The leaf hashes of any entries."""
    return [hashlib.sha256(b"\x00" + entry).digest() for entry in written]


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two smaller than n."""
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
    """Every tile of tlog-tiles, by level and index: hashes of complete subtrees over 256**level leaves, 256 a tile."""
    found = {}
    level, hashes = 0, list(d)
    while hashes:
        for start in range(0, len(hashes), 256):
            found[level, start // 256] = b"".join(hashes[start : start + 256])
        full = len(hashes) // 256
        hashes = [root(hashes[n * 256 : (n + 1) * 256]) for n in range(full)]
        level += 1
    return found
