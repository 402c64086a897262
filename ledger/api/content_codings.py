"""Content codings of request bodies: gzip, deflate, identity; decompressed in limited pieces."""

import zlib
from collections.abc import Iterator, Sequence

from ledger.domain.errors import Malformed, UnsupportedMediaType

CODINGS = ("gzip", "deflate", "identity")

PIECE_BYTES_MAX = 64 * 1024

MEMBERS_MAX = 1_000
"""A gzip body may have several members (RFC 1952). Each takes memory and time, however small it is."""

_GZIP_BITS = zlib.MAX_WBITS | 16


class UnsupportedContentCodingError(UnsupportedMediaType):
    """The content coding is not supported; the response names those that are."""


def coding_of(values: Sequence[str]) -> str:
    """Return the content coding of a body.

    Args:
        values: of the headers `Content-Encoding`.

    Raises:
        UnsupportedContentCodingError: it is unknown, or there is more than one.
    """
    coding = ", ".join(values).strip().lower() or "identity"
    coding = "gzip" if coding == "x-gzip" else coding  # RFC 9110, section 8.4.1.3
    if coding not in CODINGS:
        raise UnsupportedContentCodingError(
            f"the content coding {coding[:50]!r} is not supported; send gzip, deflate or identity, and only one of them"
        )
    return coding


class Decompressor:
    """Decompresses one body, received in parts."""

    def __init__(self, coding: str) -> None:
        """Make a decompressor for `gzip` or `deflate`."""
        self._coding = coding
        self._members = 0
        self._stream: zlib._Decompress | None = None

    def decompress(self, part: bytes) -> Iterator[bytes]:
        """Yield the next pieces of the body, each of at most `PIECE_BYTES_MAX`.

        Raises:
            Malformed: the data does not match the content coding.
        """
        piece = b""
        while part or len(piece) == PIECE_BYTES_MAX:
            if self._stream is None or self._stream.eof:
                self._stream = self._next_member(part)
            try:
                piece = self._stream.decompress(part, PIECE_BYTES_MAX)
            except zlib.error:
                raise self._mismatch() from None
            if piece:
                yield piece
            if self._stream.eof:
                part, piece = self._stream.unused_data, b""
            else:
                part = self._stream.unconsumed_tail

    def finish(self) -> None:
        """Check that the data is complete.

        Raises:
            Malformed: the data is incomplete.
        """
        if self._stream is None or not self._stream.eof:
            raise self._mismatch()

    def _next_member(self, part: bytes) -> "zlib._Decompress":
        self._members += 1
        if self._members > (MEMBERS_MAX if self._coding == "gzip" else 1):
            raise self._mismatch()
        if self._coding == "gzip":
            return zlib.decompressobj(_GZIP_BITS)
        # Some clients send deflate without the header that the coding requires (RFC 9110, section 8.4.1.2).
        return zlib.decompressobj(zlib.MAX_WBITS if part[0] & 0xF == 8 else -zlib.MAX_WBITS)

    def _mismatch(self) -> Malformed:
        return Malformed(f"the body is not complete and valid {self._coding}, which its Content-Encoding names")
