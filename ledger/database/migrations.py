"""Database migrations: the expected and the current revision, and migrating with Alembic."""

import re
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from ledger import __version__
from ledger.database import Connection, Database
from ledger.domain.errors import LedgerError

_NUMBER = re.compile("[0-9]{4}")
"""What the revisions of the ledger look like, unlike those that Alembic makes up for other programs."""


class UnknownRevisionError(LedgerError):
    """The database is at a revision that this release does not have."""


class SeveralHeadsError(LedgerError):
    """There is more than one newest migration."""


class DataLossError(LedgerError):
    """A downgrade would delete data that cannot be computed again."""


def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "alembic"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def expected_revision() -> str:
    """Return the revision that this release requires."""
    return only_head(ScriptDirectory.from_config(_config()))


def only_head(migrations: ScriptDirectory) -> str:
    """Return the revision of the newest migration.

    Raises:
        SeveralHeadsError: there is more than one.
    """
    head, *others = migrations.get_heads()
    if others:
        raise SeveralHeadsError(
            f"there are several newest migrations, {head} and {' and '.join(others)}, usually after a merge; nothing "
            "was changed. Next: in alembic/versions, change the down_revision of one to the other"
        )
    return head


def revision_problem(current: str | None) -> str | None:
    """Return what is wrong with a database at this revision, and the next step; None if this release can use it."""
    expected = expected_revision()
    if current == expected:
        return None
    if current is None:
        return f"the database is empty, and this release needs revision {expected}: run `ledger migrate`"
    if not is_known(current):
        return (
            f"the database is at revision {current}, which release {__version__} does not know: a newer release of the "
            "ledger, or another program that uses Alembic, has migrated it. Next: install that release, or choose "
            "another database"
        )
    return f"the database is at revision {current}, and this release needs revision {expected}: run `ledger migrate`"


def running_problem(current: str | None) -> str | None:
    """Return what is wrong with a database for a service that runs already; None if this release can use it.

    A newer release may have migrated it: migrations keep the previous release working.
    """
    is_newer = current is not None and _NUMBER.fullmatch(current) and current > expected_revision()
    return None if is_newer else revision_problem(current)


def is_known(revision: str) -> bool:
    """Whether this release has the migration to a revision."""
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


async def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database; None if it was never migrated."""
    if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
        return None
    revision = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return str(revision) if revision is not None else None


async def migrate(database: Database, *, to: str = "head") -> None:
    """Migrate the database to a revision, in one transaction; `base` drops everything, also events.

    Raises:
        UnknownRevisionError: a newer release has migrated the database.
    """

    def run(connection: sqlalchemy.Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        if to == "base":
            command.downgrade(config, to)
        else:
            command.upgrade(config, to)

    async with database.engine.begin() as connection:
        await connection.run_sync(run)
