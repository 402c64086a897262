"""Signing files of the sealer: the private key `log.key` and the last signed checkpoint.

Restoring a database backup does not restore these files, so the sealer can detect the rollback.
"""

import re
from pathlib import Path

import msgspec

from ledger.audit.note import NoteError, Signer, Verifier, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError
from ledger.durable_files import create_file, replace_file, sync_folder


class LocalCheckpoint(msgspec.Struct, frozen=True):
    """The verifier key and the last checkpoint in the signing files; `checkpoint` is None if nothing was signed yet."""

    verifier: Verifier
    checkpoint: Checkpoint | None


def key_mismatch(sealed_with: str | None, verifier: Verifier) -> str | None:
    """Describe the difference if the log is sealed with another key; None if it is not, or was never sealed.

    Args:
        sealed_with: the verifier key of the sealed log.
        verifier: of the key on this machine.
    """
    if sealed_with in (None, verifier.text):
        return None
    return f"the log was sealed with the key {sealed_with}, but the key here is {verifier.text}"


def is_same_log(sealed_with: str | None, verifier: Verifier) -> bool:
    """Whether a log is sealed with this key and origin, apart from the number of logs given up.

    Args:
        sealed_with: the verifier key of the sealed log.
        verifier: of the key on this machine.
    """
    try:
        sealed = Verifier.parse(sealed_with or "")
    except NoteError:
        return False
    origins = {re.sub(r"/[1-9][0-9]{0,8}$", "", name) for name in (sealed.name, verifier.name)}
    return sealed.public_key == verifier.public_key and len(origins) == 1


class SigningFiles:
    """The signing files of one log, and the log's current origin."""

    def __init__(self, folder: Path, key: Path | None, origin: str) -> None:
        """Set the paths; nothing is read yet.

        Args:
            folder: for the checkpoint and the archived checkpoints (`LEDGER_HOME`).
            key: file with the private key; `log.key` in the folder if None.
            origin: name of the first log that was sealed with these files.
        """
        self._folder = folder
        self.key_file = key or folder / "log.key"
        self.checkpoint_file = folder / "checkpoint"
        self._origin = origin

    @property
    def origin(self) -> str:
        """The log's name: the first origin, followed by a number once a log has been given up."""
        generation = self._generation
        return self._origin if generation == 1 else f"{self._origin}/{generation}"

    def read_signer(self) -> Signer | None:
        """Read the private key, renamed to the log's current origin; return None if there is no key file.

        Raises:
            NoteError: the file does not contain a key, or cannot be read.
        """
        try:
            return Signer.parse(self.key_file.read_text().strip()).renamed(self.origin)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoteError(f"{self.key_file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise NoteError(f"{self.key_file} does not contain a key: it is not text") from None
        except NoteError as error:
            raise NoteError(f"{self.key_file}: {error}") from None

    def read(self) -> LocalCheckpoint | None:
        """Read the key and the last checkpoint; return None if the key is not on this machine.

        Raises:
            NoteError: the key cannot be read, or it has not signed the checkpoint.
        """
        signer = self.read_signer()
        return LocalCheckpoint(signer.verifier, self.read_checkpoint(signer.verifier)) if signer is not None else None

    def make_signer(self) -> Signer:
        """Create a key and write its file, readable only by its owner.

        Raises:
            FileExistsError: the key file exists already.
        """
        self.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = Signer.generate(self.origin)
        create_file(self.key_file, f"{signer.secret_text()}\n".encode())
        return signer

    def read_checkpoint(self, verifier: Verifier) -> Checkpoint | None:
        """Read and verify the last checkpoint that was signed here; return None if there is none yet.

        Raises:
            NoteError: this key has not signed the file for this log.
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
            raise NoteError(
                f"{self.checkpoint_file} is of the log {checkpoint.origin}, but this log is {verifier.name}"
            )
        return checkpoint

    def write_checkpoint(self, note: bytes) -> None:
        """Store a signed checkpoint; once this returns, the file survives a power failure."""
        # With the key in another folder, this folder may not exist yet.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.checkpoint_file, note, mode=0o666)

    def archive_checkpoint(self, origin: str | None, note: bytes | None) -> None:
        """Give up the current log: archive its checkpoint, so that the next log gets a new origin.

        Args:
            origin: of the log in the database; None if it was never sealed. It is not used again, even if the
                archived checkpoints in this folder were lost.
            note: the last checkpoint in the database, archived if this folder has none.
        """
        if origin is None and not self.checkpoint_file.exists():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        archive = self._folder / f"checkpoint.{max(self._generation, self._generation_of(origin or ''))}"
        if self.checkpoint_file.exists():
            self.checkpoint_file.rename(archive)
            sync_folder(self._folder)
        else:
            replace_file(archive, note or b"", mode=0o666)

    @property
    def _generation(self) -> int:
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        archived = [re.fullmatch(r"checkpoint\.([1-9][0-9]{0,8})", file.name) for file in files]
        return 1 + max((int(match[1]) for match in archived if match), default=0)

    def _generation_of(self, origin: str) -> int:
        match = re.fullmatch(re.escape(self._origin) + "/([1-9][0-9]{0,8})", origin)
        return int(match[1]) if match else 1
