"""The home of a ledger: which of its folders holds the keys and the checkpoint of which database.

A home belongs to the first database that is used with it, which `HOME/database` names. Every other database has a
folder of its own, `HOME/databases/<system identifier>-<name>`, so nothing of one is overwritten or renamed for another.
"""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import asyncpg
import msgspec

from ledger.audit import tree_store
from ledger.audit.note import NoteError, Verifier
from ledger.audit.signing_files import SigningFiles
from ledger.database import Connection
from ledger.domain.errors import LedgerError
from ledger.durable_files import create_file, replace_file

OWNER_FILE = "database"
FOLDERS = "databases"

SYSTEM_IDENTIFIER = "SELECT system_identifier::text FROM pg_control_system()"
IS_SEALED = "SELECT to_regclass('ledger.log_checkpoint') IS NOT NULL"


class HomeError(LedgerError):
    """A file of the home cannot be used; the message names it and the next step."""


class DatabaseIdentity(msgspec.Struct, frozen=True):
    """The identity of a database: the system identifier of its server, and its name."""

    system_identifier: str
    name: str

    @property
    def folder_name(self) -> str:
        """The name of this database's folder in the home of another one."""
        return f"{self.system_identifier}-{quote(self.name, safe='')}"


class DatabaseFolder(NamedTuple):
    """The folder of a database: its owner until now, and whether its key has sealed the log of this database."""

    path: Path
    database: DatabaseIdentity
    owner: DatabaseIdentity | None
    has_sealed: bool

    @property
    def may_hold_another_log(self) -> bool:
        """Whether the checkpoint in the folder may be of another log: a copy of it, or one without an owner."""
        if self.owner is not None:
            return self.owner != self.database
        return not self.has_sealed and (self.path / "checkpoint").exists()

    def claim(self) -> None:
        """Record that the folder belongs to this database."""
        if self.owner != self.database:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.path / OWNER_FILE, msgspec.json.encode(self.database) + b"\n")


async def find_folder(
    connection: Connection, home: Path, key_file: Path | None, *, is_embedded: bool
) -> DatabaseFolder:
    """Return the folder of the connected database; nothing is written.

    It is the first of these: a folder that names the database; one whose key has sealed the database's log, which was
    moved or restored; the home, if it belongs to no database; a new folder inside the home.

    Args:
        connection: to the database.
        home: the home.
        key_file: the file of the signing key if it is not in the folder (`LEDGER_LOG_KEY`).
        is_embedded: whether the database is the one that the home contains.

    Raises:
        HomeError: a file that names a database cannot be read.
        NoteError: a key cannot be read.
    """
    database = await _read_identity(connection)
    folders = [home, *sorted(folder for folder in (home / FOLDERS).glob("*") if folder.is_dir())]
    owners = {folder: _read_owner(folder) for folder in folders}
    public_key = await _read_public_key(connection)
    sealing = [folder for folder in folders if public_key and _public_key_in(folder, key_file) == public_key]
    # Homes of earlier releases name no database, but one with an embedded PostgreSQL was used with that.
    is_free = owners[home] is None and (is_embedded or not (home / "postgres" / "data").exists())
    chosen = [folder for folder, owner in owners.items() if owner == database] or sealing or [home] * is_free
    path = chosen[0] if chosen else home / FOLDERS / database.folder_name
    return DatabaseFolder(path, database, owners.get(path), path in sealing)


def store_admin_key(folder: Path, text: str) -> Path:
    """Write a new `admin.key`, readable only by its owner; an earlier one, of keys that are gone, is archived first."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / "admin.key"
    if file.exists():
        number = 1
        while (archive := folder / f"admin.key.{number}").exists():
            number += 1
        file.rename(archive)
    create_file(file, f"{text}\n".encode())
    return file


async def _read_identity(connection: Connection) -> DatabaseIdentity:
    try:
        system_identifier = await connection.fetchval(SYSTEM_IDENTIFIER)
    except asyncpg.InsufficientPrivilegeError:
        # A provider may have revoked the function. Databases of several such servers are distinguished by name alone.
        system_identifier = "unknown"
    return DatabaseIdentity(system_identifier, await connection.fetchval("SELECT current_database()"))


def _read_owner(folder: Path) -> DatabaseIdentity | None:
    file = folder / OWNER_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=DatabaseIdentity)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(f"{file} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError:
        raise HomeError(
            f"{file} does not name a database. Next: restore it, or delete it if only one database was ever used with "
            f"{folder}"
        ) from None


async def _read_public_key(connection: Connection) -> bytes | None:
    """Return the public key that the log in the database was last sealed with; None if it was never sealed."""
    if not await connection.fetchval(IS_SEALED):
        return None
    row = await connection.fetchrow(tree_store.READ_SEALED_TREE)
    text = tree_store.SealedTree(*row).verifier_key if row is not None else None
    try:
        return Verifier.parse(text).public_key if text is not None else None
    except NoteError:
        # Tampered with: `ledger verify` reports it.
        return None


def _public_key_in(folder: Path, key_file: Path | None) -> bytes | None:
    signer = SigningFiles(folder, key_file, "any").read_signer()
    return signer.verifier.public_key if signer is not None else None
