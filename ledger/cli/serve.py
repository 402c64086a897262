"""ledger serve and ledger worker: the two halves of the service, as processes of their own."""

import socket
from pathlib import Path

import click
from sqlalchemy import URL

from ledger.api.app import serving
from ledger.api.client_connections import raise_open_file_limit
from ledger.api.rate_limits import RateLimits
from ledger.audit.sealer import find_sealer
from ledger.cli.common import (
    home_option,
    plain_errors,
    reachable_database,
    require_loopback,
    require_migrated,
    run,
    settings_for,
    signing_files,
)
from ledger.cli.databases import service_engines
from ledger.cli.up import announce, bind, stop_signal, until_stopped
from ledger.config import Settings
from ledger.keys import KeyRing
from ledger.runtime import background


@click.command()
@click.option("--no-auth", is_flag=True, help="Let everybody in, without keys; on loopback only.")
@click.option("--host", help="Address to serve on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to serve on; 0 takes a free one.  [default: 8080]")
@home_option
def serve(no_auth: bool, host: str | None, port: int | None, home: Path | None) -> None:
    """Serve the API; the read models are kept by `ledger worker`."""
    with plain_errors():
        settings = settings_for(home, host, port)
        if no_auth:
            require_loopback(settings.host)
        listener = bind(settings)
        with reachable_database(settings) as url:
            run(_serve(settings, url, listener, no_auth))


async def _serve(settings: Settings, url: URL, listener: socket.socket, no_auth: bool) -> None:
    stop = stop_signal()
    async with service_engines(settings, url) as (database, direct, replica):
        await require_migrated(database)
        key_ring = None if no_auth else KeyRing(database)
        rates = None if no_auth else RateLimits(settings.rate_limit)
        async with serving(
            database,
            listener,
            with_worker=False,
            key_ring=key_ring,
            rate_limits=rates,
            direct=direct,
            replica=replica,
            connections_max=raise_open_file_limit(settings.connections_max),
        ):
            announce(listener)
            await until_stopped(stop)


@click.command()
@home_option
def worker(home: Path | None) -> None:
    """Keep the read models, free the holds that run out, and seal the log where its key is.

    Any number may run; one is active at a time.
    """
    settings = settings_for(home)
    with reachable_database(settings) as url:
        run(_work(settings, url))


async def _work(settings: Settings, url: URL) -> None:
    stop = stop_signal()
    async with service_engines(settings, url) as (database, direct, _):
        await require_migrated(database)
        sealer = await find_sealer(database, signing_files(settings))
        async with background(database, with_worker=True, sealer=sealer, direct=direct):
            click.echo("The worker is running (Ctrl-C stops it)")
            await until_stopped(stop)
