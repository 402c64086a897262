"""Checkpoints: how far a log goes and its root, as C2SP tlog-checkpoint v1.0.0 has them. Signed, they are notes."""

import re

import msgspec

from ledger.audit.merkle import HASH_BYTES
from ledger.audit.note import decode_base64, encode_base64
from ledger.domain.errors import LedgerError

_SIZE = re.compile("0|[1-9][0-9]{0,18}")


class CheckpointError(LedgerError, ValueError):
    """This is not the text of a checkpoint."""


class Checkpoint(msgspec.Struct, frozen=True):
    """The log called `origin` has `size` entries, and its tree this root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a checkpoint: a line each for origin, size in decimal and root in base64.

        Extension lines may follow; they are ignored.

        Raises:
            CheckpointError: it is anything else.
        """
        lines = text.split("\n")
        if lines.pop() != "" or len(lines) < 3 or "" in lines:
            raise CheckpointError("a checkpoint has three lines or more, none empty, each with a newline at its end")
        origin, size, root = lines[:3]
        if not _SIZE.fullmatch(size):
            raise CheckpointError(f"a checkpoint's size is a decimal number without leading zeros, not {size!r}")
        try:
            decoded = decode_base64(root)
        except ValueError:
            decoded = b""
        if len(decoded) != HASH_BYTES:
            raise CheckpointError(f"a checkpoint's root is {HASH_BYTES} bytes in base64, not {root!r}")
        return cls(origin, int(size), decoded)

    @property
    def text(self) -> str:
        """The checkpoint as it is signed."""
        assert self.origin
        assert "\n" not in self.origin
        assert self.size >= 0
        assert len(self.root) == HASH_BYTES
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"
