"""ledger up: PostgreSQL, migrations, HTTP API, worker and sealer in one process."""

import socket
from contextlib import suppress
from pathlib import Path

import click

from ledger.api.app import serving
from ledger.api.open_files import raise_open_file_limit
from ledger.api.rate_limits import RateLimits
from ledger.audit.home import store_admin_key
from ledger.audit.sealer import find_sealer
from ledger.cli.admin import append_sample_data, print_seeded
from ledger.cli.databases import (
    claim,
    database_folder,
    migrate_database,
    service_databases,
    service_server,
)
from ledger.cli.event_loop import run_async, stop_signal, wait_for_stop
from ledger.cli.key_files import warn_of_exposures
from ledger.cli.listening import bind, print_address
from ledger.cli.options import home_option, host_option, port_option
from ledger.cli.output import exit_on_error
from ledger.cli.price_import import first_import
from ledger.cli.settings import settings_for, signing_files
from ledger.cli.user import command_line_actor
from ledger.config import Settings
from ledger.database import Database
from ledger.database.location import LocatedServer
from ledger.domain.access import Role
from ledger.domain.errors import ProjectionBehind
from ledger.embedded import exclusive_home, store_url
from ledger.key_ring import KeyRing
from ledger.keys import list_keys
from ledger.log.key_events import create_key
from projections.positions import wait_for_read_models
from projections.queries import projection_status


@click.command()
@click.option("--demo", is_flag=True, help="Append the sample data.")
@host_option
@port_option
@home_option
def up(demo: bool, host: str | None, port: int | None, home: Path | None) -> None:
    """Run PostgreSQL, API, worker and sealer in one process.

    The database is migrated first. An embedded PostgreSQL is started unless a database is configured. The first start
    creates the database, the signing key, and an API key for the administrator, which is printed once and stored in
    admin.key. It imports the prices of the library genai-prices if that is installed. SIGTERM and Ctrl-C stop the
    service after accepted requests are answered.
    """
    with exit_on_error():
        settings = settings_for(home, host, port)
        with exclusive_home(settings.home, "ledger up"):
            listener = bind(settings)
            with service_server(settings, create=True) as server:
                run_async(_up(settings, server, listener, demo))


async def _up(settings: Settings, server: LocatedServer, listener: socket.socket, demo: bool) -> None:
    stop = stop_signal()
    await migrate_database(settings.direct_database_url or server.url)
    async with service_databases(settings, server, "ledger up", stop) as (database, appends, direct, replica):
        if demo:
            print_seeded(await append_sample_data(database))
        folder = await database_folder(database, settings)
        claim(folder, settings)
        sealer = await find_sealer(database, signing_files(settings, folder), make_key=True)
        if sealer is None:
            click.echo("This process does not seal the log: it has no signing key.")
        await _create_admin_key(database, folder.path)
        warn_of_exposures(settings)
        async with serving(
            database,
            listener,
            with_worker=True,
            sealer=sealer,
            key_ring=KeyRing(database),
            rate_limits=RateLimits(settings.rate_limit),
            connections_max=raise_open_file_limit(settings.connections_max),
            appends=appends,
            direct=direct,
            replica=replica,
            reverify_hours=settings.reverify_hours,
        ):
            if demo:
                await _wait_for_read_models(database)
            if server.embedded is not None:
                click.echo("To connect other programs to the database:")
                click.echo(f"DATABASE_URL={store_url(settings.home, server.url)}")
            print_address(listener)
            async with first_import(database, settings):
                await wait_for_stop(stop)


async def _wait_for_read_models(database: Database) -> None:
    """Wait until the read models reflect the sample data, or until the wait times out."""
    async with database.connection() as connection:
        status = await projection_status(connection)
    with suppress(ProjectionBehind):
        await wait_for_read_models(database, status.head)


async def _create_admin_key(database: Database, folder: Path) -> None:
    """Create an administrator's API key if there are no keys; print it once and store it in the folder."""
    async with database.connection() as connection, connection.transaction():
        if await list_keys(connection):
            return
        _, text = await create_key(connection, "admin", Role.ADMIN, actor=command_line_actor())
        # Before the commit: a key whose file was lost could not be used.
        file = store_admin_key(folder, text)
    click.echo(f"Admin key, shown only this once and stored in {file}: {text}")
