"""Checkpoints of the sealed log (C2SP tlog-checkpoint v1.0.0): origin, size and Merkle root as a note.

`Checkpoint.parse` is also for auditors: `docs/guides/auditors.md` shows how.
"""

import re

import msgspec

from ledger.audit.merkle import HASH_BYTES
from ledger.audit.note import decode_base64, encode_base64
from ledger.domain.errors import LedgerError

_SIZE = re.compile("0|[1-9][0-9]{0,18}")


class CheckpointError(LedgerError, ValueError):
    """The text is not a checkpoint."""


class Checkpoint(msgspec.Struct, frozen=True):
    """The log named `origin` has `size` entries, and its tree has this root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Parse the text of a checkpoint: one line each for origin, size in decimal and root in base64.

        Extension lines may follow; they are ignored.

        Raises:
            CheckpointError: the text is anything else.
        """
        lines = text.split("\n")
        if lines.pop() != "" or len(lines) < 3 or "" in lines:
            raise CheckpointError(
                "a checkpoint has at least three lines, none of them empty, and each ends with a newline"
            )
        origin, size, root = lines[:3]
        if not _SIZE.fullmatch(size):
            raise CheckpointError(f"a checkpoint's size must be a decimal number without leading zeros, not {size!r}")
        try:
            decoded = decode_base64(root)
        except ValueError:
            decoded = b""
        if len(decoded) != HASH_BYTES:
            raise CheckpointError(f"a checkpoint's root must be {HASH_BYTES} bytes in base64, not {root!r}")
        return cls(origin, int(size), decoded)

    @property
    def text(self) -> str:
        """The text that is signed."""
        assert self.origin
        assert "\n" not in self.origin
        assert self.size >= 0
        assert len(self.root) == HASH_BYTES
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"
