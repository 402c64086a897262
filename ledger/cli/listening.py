"""The listening socket of `ledger up` and `ledger serve`."""

import socket

import click

from ledger.api.app import listen
from ledger.cli.output import fail
from ledger.cli.settings import LOOPBACK_HOSTS
from ledger.config import Settings


def bind(settings: Settings) -> socket.socket:
    """Bind the listening socket, or end the command if the port is taken."""
    try:
        return listen(settings.host, settings.port)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        fail(f"cannot listen on {address} ({error.strerror}); choose another port with --port, or 0 for a free one")


def print_address(listener: socket.socket) -> None:
    """Print the URL of the service."""
    host, port = listener.getsockname()[:2]
    click.echo(f"The ledger is at http://{f'[{host}]' if ':' in host else host}:{port} (press Ctrl-C to stop)")


def require_loopback(host: str) -> None:
    """Reject --no-auth on an address that other machines can reach."""
    if host not in LOOPBACK_HOSTS:
        raise click.UsageError(f"--no-auth is for loopback addresses only, not {host}; use --host 127.0.0.1")
