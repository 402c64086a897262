"""What the sealer keeps outside the database: its private key, and the last checkpoint it has signed.

A database restored from a backup does not take them back: so the sealer notices.
"""

import os
import re
import secrets
from pathlib import Path

import msgspec

from ledger.audit.note import NoteError, Signer, Verifier, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError


class LocalCheckpoint(msgspec.Struct, frozen=True):
    """What a ledger's folder knows of its log without asking the database; no checkpoint before the first."""

    verifier: Verifier
    checkpoint: Checkpoint | None


class SigningFiles:
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
        """The log's name: the first log's, and a number after it once a log was given up."""
        generation = self._generation
        return self._origin if generation == 1 else f"{self._origin}/{generation}"

    def read_signer(self) -> Signer | None:
        """The key, under the name that the log has now; None where there is none.

        Raises:
            NoteError: the file holds something else, or cannot be read.
        """
        try:
            return Signer.parse(self.key_file.read_text().strip()).renamed(self.origin)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoteError(f"{self.key_file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise NoteError(f"{self.key_file} is not a key: it is no text") from None
        except NoteError as error:
            raise NoteError(f"{self.key_file}: {error}") from None

    def read(self) -> LocalCheckpoint | None:
        """What is known here of the log; None where the key is elsewhere.

        Raises:
            NoteError: the key cannot be read, or the checkpoint is not what it has signed.
        """
        signer = self.read_signer()
        return LocalCheckpoint(signer.verifier, self.read_checkpoint(signer.verifier)) if signer is not None else None

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
            NoteError: the file is not what this key has signed for this log.
        """
        try:
            note = self.checkpoint_file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            checkpoint = Checkpoint.parse(open_note(note, [verifier]))
        except (NoteError, CheckpointError) as error:
            raise NoteError(f"{self.checkpoint_file} is not what this key has signed: {error}") from None
        if checkpoint.origin != verifier.name:
            raise NoteError(f"{self.checkpoint_file} is of the log {checkpoint.origin}, this is {verifier.name}")
        return checkpoint

    def write_checkpoint(self, note: bytes) -> None:
        """Keep a checkpoint: after this returns it survives whatever happens to the machine's power."""
        # The key may lie elsewhere, and nothing here yet.
        self._folder.mkdir(parents=True, exist_ok=True)
        # A name of its own: a sealer that lost its connection, and with it the lock, may be writing at the same moment.
        new = self.checkpoint_file.with_name(f"checkpoint.{secrets.token_hex(4)}.new")
        try:
            with new.open("wb") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.checkpoint_file)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def give_up(self, origin: str | None, note: bytes | None) -> None:
        """Give this log up: its checkpoint is put away, and the next log goes by another name.

        Args:
            origin: of the log in the database, None where it was never sealed. Its name is not used again, even
                where this folder has lost what would tell.
            note: the last checkpoint in the database, kept where there is none here.
        """
        if origin is None and not self.checkpoint_file.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        archive = self._folder / f"checkpoint.{max(self._generation, self._generation_of(origin or ''))}"
        if self.checkpoint_file.exists():
            self.checkpoint_file.rename(archive)
        else:
            archive.write_bytes(note or b"")

    @property
    def _generation(self) -> int:
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        archived = [re.fullmatch(r"checkpoint\.([1-9][0-9]{0,8})", file.name) for file in files]
        return 1 + max((int(found[1]) for found in archived if found), default=0)

    def _generation_of(self, origin: str) -> int:
        found = re.fullmatch(re.escape(self._origin) + "/([1-9][0-9]{0,8})", origin)
        return int(found[1]) if found else 1
