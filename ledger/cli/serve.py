"""ledger serve and ledger worker: the HTTP API and the background worker as separate processes."""

import socket
from pathlib import Path

import click

from ledger.api.app import serving
from ledger.api.open_files import raise_open_file_limit
from ledger.api.rate_limits import RateLimits
from ledger.audit.sealer import find_sealer
from ledger.cli.databases import (
    claim,
    database_folder,
    require_migrated,
    service_databases,
    service_server,
)
from ledger.cli.event_loop import run_async, stop_signal, wait_for_stop
from ledger.cli.key_files import warn_of_exposures
from ledger.cli.listening import bind, print_address, require_loopback
from ledger.cli.options import home_option, host_option, port_option
from ledger.cli.output import exit_on_error
from ledger.cli.settings import settings_for, signing_files
from ledger.config import Settings
from ledger.database.location import LocatedServer
from ledger.key_ring import KeyRing
from ledger.runtime import background


@click.command()
@click.option("--no-auth", is_flag=True, help="Accept requests without an API key; on loopback addresses only.")
@host_option
@port_option
@home_option
def serve(no_auth: bool, host: str | None, port: int | None, home: Path | None) -> None:
    """Serve the HTTP API.

    `ledger worker` updates the read models in another process. Any number of both can run. SIGTERM and Ctrl-C stop the
    service after accepted requests are answered.
    """
    with exit_on_error():
        settings = settings_for(home, host, port)
        if no_auth:
            require_loopback(settings.host)
        listener = bind(settings)
        with service_server(settings) as server:
            run_async(_serve(settings, server, listener, no_auth))


async def _serve(settings: Settings, server: LocatedServer, listener: socket.socket, no_auth: bool) -> None:
    stop = stop_signal()
    async with service_databases(settings, server, "ledger serve", stop) as (database, appends, direct, replica):
        await require_migrated(database)
        key_ring = None if no_auth else KeyRing(database)
        rates = None if no_auth else RateLimits(settings.rate_limit)
        async with serving(
            database,
            listener,
            with_worker=False,
            key_ring=key_ring,
            rate_limits=rates,
            appends=appends,
            direct=direct,
            replica=replica,
            connections_max=raise_open_file_limit(settings.connections_max),
        ):
            print_address(listener)
            await wait_for_stop(stop)


@click.command()
@home_option
def worker(home: Path | None) -> None:
    """Update the read models, expire holds, and seal the log.

    Any number of workers can run; one is active, the others take over if it ends. The log is sealed only by a worker
    that has the signing key.
    """
    settings = settings_for(home)
    with service_server(settings) as server:
        run_async(_work(settings, server))


async def _work(settings: Settings, server: LocatedServer) -> None:
    stop = stop_signal()
    async with service_databases(settings, server, "ledger worker", stop) as (database, appends, direct, *_):
        await require_migrated(database)
        folder = await database_folder(database, settings)
        if sealer := await find_sealer(database, signing_files(settings, folder)):
            claim(folder, settings)
        warn_of_exposures(settings)
        async with background(
            database,
            with_worker=True,
            sealer=sealer,
            appends=appends,
            direct=direct,
            reverify_hours=settings.reverify_hours,
        ):
            click.echo("The worker is running (press Ctrl-C to stop)")
            await wait_for_stop(stop)
