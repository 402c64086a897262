"""ledger backup, restore and upgrade-embedded: the data of the embedded PostgreSQL."""

from pathlib import Path

import click

from ledger.cli.databases import migrate_database, service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option
from ledger.cli.output import echo, exit_on_error, fail
from ledger.cli.replay import verify
from ledger.cli.settings import settings_for
from ledger.config import Settings
from ledger.embedded import VERSION, back_up, exclusive_home, restore_dump, upgrade


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@home_option
def backup(file: Path, home: Path | None) -> None:
    """Back up the embedded PostgreSQL to FILE.

    FILE is a dump of the database at one position: events, tables, keys, balances and the seal. The service may run
    meanwhile. An existing file is never overwritten. Back up the signing key, HOME/log.key, separately.
    """
    with service_url(_embedded_settings(home)) as url:
        back_up(url, file)
    echo(f"Backed up to {file}.")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
@click.pass_context
def restore(context: click.Context, file: Path, home: Path | None) -> None:
    """Restore the embedded PostgreSQL from FILE, and verify it.

    FILE is made by `ledger backup`. The service must be stopped. The present database is kept under another name, which
    is printed. The restored one is migrated to this release and verified; the exit code is 1 if it is not clean.
    """
    settings = _embedded_settings(home)
    with (
        exit_on_error(),
        exclusive_home(settings.home, "ledger restore"),
        service_url(settings, create=True) as url,
    ):
        kept = restore_dump(url, file)
        run_async(migrate_database(url))
    echo(f"Restored {file}.")
    if kept is not None:
        echo(f"The previous database is kept as {kept}; to delete it: DROP DATABASE {kept}")
    context.invoke(verify, home=home)


@click.command("upgrade-embedded")
@home_option
def upgrade_embedded(home: Path | None) -> None:
    """Upgrade the embedded PostgreSQL to this release's version.

    It is needed if the release has another major version of PostgreSQL. The service must be stopped. All databases and
    roles are dumped and loaded into a new data folder; the old one is kept beside it.
    """
    settings = _embedded_settings(home)
    with exit_on_error(), exclusive_home(settings.home, "ledger upgrade-embedded"):
        before = upgrade(settings.home)
    if before == VERSION:
        echo(f"The data belong to PostgreSQL {VERSION} already.")
        return
    old = settings.home / "postgres" / f"data-{before}"
    echo(f"The data were moved from PostgreSQL {before} to {VERSION}.")
    echo(f"Next: run `ledger migrate` and `ledger verify`; if it is clean, delete {old}.")


def _embedded_settings(home: Path | None) -> Settings:
    """Return the settings; end the command if another database than the embedded one is configured."""
    settings = settings_for(home)
    if settings.database_url is not None:
        fail("a database is configured (DATABASE_URL or DB_HOST): use the tools of PostgreSQL, such as pg_dump")
    return settings
