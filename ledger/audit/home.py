"""What the sealer keeps outside the database: its private key, and the last checkpoint it has signed.

Both are files that only their owner may read. A database restored from a backup does not take them back: so the
sealer notices.
"""

import os
import re
from pathlib import Path

from ledger.audit.checkpoint import Checkpoint
from ledger.audit.note import Signer, Verifier, open_note


class LogHome:
    """The files of one log, and the name it goes by."""

    def __init__(self, folder: Path, key: Path | None, origin: str) -> None:
        """Say where they are; nothing is read yet.

        Args:
            folder: the ledger's own files.
            key: the private key; `log.key` in the folder when None.
            origin: of the first log that was sealed here.
        """
        self._folder = folder
        self.key_file = key or folder / "log.key"
        self.checkpoint_file = folder / "checkpoint"
        self._origin = origin

    @property
    def origin(self) -> str:
        """The log's name: the first log's, and a number after it for each log given up since."""
        generation = 1 + len(self._archived())
        return self._origin if generation == 1 else f"{self._origin}/{generation}"

    def read_signer(self) -> Signer | None:
        """The key, under the name that the log has now; None where there is none.

        Raises:
            NoteError: the file holds something else.
            OSError: it cannot be read.
        """
        try:
            text = self.key_file.read_text()
        except FileNotFoundError:
            return None
        return Signer.parse(text.strip()).renamed(self.origin)

    def make_signer(self) -> Signer:
        """Make a key and keep it, readable by its owner alone.

        Raises:
            FileExistsError: there is one.
        """
        self.key_file.parent.mkdir(parents=True, exist_ok=True)
        signer = Signer.generate(self.origin)
        descriptor = os.open(self.key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(signer.secret_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
        return signer

    def read_checkpoint(self, verifier: Verifier) -> Checkpoint | None:
        """The last checkpoint signed here; None where there is none yet.

        Raises:
            NoteError, CheckpointError: the file is not what this key has signed.
        """
        try:
            note = self.checkpoint_file.read_bytes()
        except FileNotFoundError:
            return None
        return Checkpoint.parse(open_note(note, [verifier]))

    def write_checkpoint(self, note: bytes) -> None:
        """Keep a checkpoint: after this returns it survives whatever happens to the machine's power."""
        new = self.checkpoint_file.with_name("checkpoint.new")
        with new.open("wb") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.checkpoint_file)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def archive_checkpoint(self) -> None:
        """Give this log up: its checkpoint is put away, and the next one goes by another name."""
        if self.checkpoint_file.exists():
            self.checkpoint_file.rename(self._folder / f"checkpoint.{1 + len(self._archived())}")

    def _archived(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return [file for file in self._folder.iterdir() if re.fullmatch(r"checkpoint\.[0-9]+", file.name)]
