"""ledger up: everything in one process."""

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import click
from sqlalchemy import URL

from ledger import sample_data
from ledger.api.app import listen, serving
from ledger.api.client_connections import raise_open_file_limit
from ledger.api.rate_limits import RateLimits
from ledger.audit.sealer import find_sealer
from ledger.cli.common import (
    appending,
    fail,
    home_option,
    plain_errors,
    reachable_database,
    run,
    settings_for,
    signing_files,
)
from ledger.cli.databases import bring_up_to_date, service_engines
from ledger.config import Settings
from ledger.database import Database
from ledger.domain.access import Role
from ledger.domain.errors import ProjectionBehind
from ledger.embedded import exclusive_home
from ledger.keys import KeyRing, create_key, list_keys
from projections.queries import projection_status, wait_for_position


@click.command()
@click.option("--demo", is_flag=True, help="Add the sample data.")
@click.option("--host", help="Address to serve on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to serve on; 0 takes a free one.  [default: 8080]")
@home_option
def up(demo: bool, host: str | None, port: int | None, home: Path | None) -> None:
    """Start everything in one process: database, migrations, API, worker."""
    with plain_errors():
        settings = settings_for(home, host, port)
        settings.home.mkdir(parents=True, exist_ok=True)
        with exclusive_home(settings.home, "ledger up"):
            listener = bind(settings)
            with reachable_database(settings) as url:
                run(_up(settings, url, listener, demo))


def bind(settings: Settings) -> socket.socket:
    """Bind the port, or say what to do when it is taken."""
    try:
        return listen(settings.host, settings.port)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        fail(f"cannot serve on {where} ({error.strerror}); choose another port with --port, 0 for a free one")


async def _up(settings: Settings, url: URL, listener: socket.socket, demo: bool) -> None:
    stop = stop_signal()
    await bring_up_to_date(settings.direct_database_url or url)
    async with service_engines(settings, url) as (database, direct, replica):
        if demo:
            async with appending(database) as appender:
                added = await sample_data.seed(database, appender)
            click.echo(f"Sample data: {added} events added." if added else "Sample data: already there.")
        sealer = await find_sealer(database, signing_files(settings), make_key=True)
        if sealer is None:
            click.echo("The log is sealed elsewhere: the key is not here.")
        await make_admin_key(database, settings.home / "admin.key")
        async with serving(
            database,
            listener,
            with_worker=True,
            sealer=sealer,
            key_ring=KeyRing(database),
            rate_limits=RateLimits(settings.rate_limit),
            connections_max=raise_open_file_limit(settings.connections_max),
            direct=direct,
            replica=replica,
        ):
            if demo:
                await shown(database)
            if settings.database_url is None:
                plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
                click.echo(f"DATABASE_URL={plain}")
            announce(listener)
            await until_stopped(stop)


async def shown(database: Database) -> None:
    """Wait until the tables show what is in the log, for whoever looks at them at once; but not for ever."""
    async with database.connection() as connection:
        standing = await projection_status(connection)
    with suppress(ProjectionBehind):
        await wait_for_position(database, standing.head)


async def make_admin_key(database: Database, file: Path) -> None:
    """On the first run make a key for the administrator, print it once and keep it in a file of the owner's alone."""
    async with database.connection() as connection, connection.transaction():
        if await list_keys(connection):
            return
        _, text = await create_key(connection, "admin", Role.ADMIN)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as kept:
            kept.write(text + "\n")
    click.echo(f"Admin key, shown this once and kept in {file}: {text}")


def announce(listener: socket.socket) -> None:
    """Print where the ledger is."""
    host, port = listener.getsockname()[:2]
    click.echo(f"The ledger is at http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops it)")


def stop_signal() -> asyncio.Event:
    """An event that Ctrl-C or SIGTERM sets; made before anything that must be ended in order is begun."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until_stopped(stop: asyncio.Event) -> None:
    """Wait for the end."""
    await stop.wait()
    click.echo("Stopping: answering what was accepted.")
