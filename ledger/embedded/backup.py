"""Backups of the embedded server: dump its database, restore a dump, keep the present database."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL

from ledger.durable_files import sync_folder
from ledger.embedded.client_programs import ClientPrograms
from ledger.embedded.cluster import DATABASE
from ledger.embedded.errors import EmbeddedError

RESTORING = f"{DATABASE}_restoring"

CREATE_EMPTY = f"""
DROP DATABASE IF EXISTS {RESTORING} WITH (FORCE);
CREATE DATABASE {RESTORING};
"""

# The policies in a dump need these roles, which belong to the server and are not in the dump.
CREATE_ROLES = """
SELECT format('CREATE ROLE %I NOLOGIN', name)
FROM unnest(ARRAY['ledger_owner', 'ledger_service', 'ledger_reader']) AS wanted (name)
WHERE to_regrole(name) IS NULL \\gexec
"""

# Roles of the server that was dumped may not exist here, so its owners and grants are not restored, but made again.
OPTIONS = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", f"--dbname={RESTORING}")

# Dumps of the first revisions have no such procedure: the migration that makes it also calls it.
GRANT_ROLES = """
SELECT 'CALL ledger.grant_roles()' WHERE to_regprocedure('ledger.grant_roles()') IS NOT NULL \\gexec
"""

EXCHANGE = f"""
BEGIN;
ALTER DATABASE {DATABASE} RENAME TO {{replaced}};
ALTER DATABASE {RESTORING} RENAME TO {DATABASE};
COMMIT;
"""

HAS_LOG = "SELECT to_regclass('ledger.log_head') IS NOT NULL"


def back_up(url: URL, file: Path) -> None:
    """Dump the database to a new file, mode 0600, while the server is in use.

    Raises:
        EmbeddedError: the file exists already, cannot be written, or the dump failed.
    """
    exists = EmbeddedError(f"{file} exists already. Next: choose another name.")
    if file.exists():
        raise exists
    # Two backups to one name must not share a file.
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        ClientPrograms(url).run("pg_dump", "--format=custom", f"--file={partial.resolve()}", database=DATABASE)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.link(partial, file)
        sync_folder(file.parent)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise EmbeddedError(f"{file} cannot be written: {error.strerror}. Next: choose another folder.") from error
    finally:
        partial.unlink(missing_ok=True)


def restore_dump(url: URL, file: Path) -> str | None:
    """Restore a dump as the server's database; the present one is renamed, and deleted only if it has no log.

    Args:
        url: of the server, with the password; nothing else may be connected to the database.
        file: made by `back_up`, or by `pg_dump --format=custom` on any server.

    Returns:
        the new name of the database that was replaced; None if it had no log.

    Raises:
        EmbeddedError: the file cannot be restored, or the database is in use; the present database is unchanged.
    """
    programs = ClientPrograms(url)
    programs.sql(CREATE_EMPTY)
    programs.sql(CREATE_ROLES)
    programs.run("pg_restore", *OPTIONS, file.resolve())
    programs.sql(GRANT_ROLES, RESTORING)
    had_log = programs.sql(HAS_LOG, DATABASE) == "t"
    replaced = f"{DATABASE}_before_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    programs.sql(EXCHANGE.format(replaced=replaced))
    if had_log:
        return replaced
    programs.sql(f"DROP DATABASE {replaced}")
    return None
