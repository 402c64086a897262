"""Database migrations: the expected and the current revision, and migrating with Alembic."""

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from ledger.database import Connection, Database


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
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database; None if it was never migrated."""
    if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
        return None
    revision = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return str(revision) if revision is not None else None


async def migrate(database: Database, *, to: str = "head") -> None:
    """Migrate the database to a revision, in one transaction; `base` drops everything."""

    def run(connection: sqlalchemy.Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        if to == "base":
            command.downgrade(config, to)
        else:
            command.upgrade(config, to)

    async with database.engine.begin() as connection:
        await connection.run_sync(run)
