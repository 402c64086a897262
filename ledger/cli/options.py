"""Options shared by several commands: --home, --json, --reason, --host and --port."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

REASON_CHARACTERS_MAX = 500


def home_option(command: F) -> F:
    """Add --home, the directory of the embedded PostgreSQL, the signing key and the admin key."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path),
        metavar="DIRECTORY",
        help="Use the ledger's files in DIRECTORY.  [default: $LEDGER_HOME or .ledger]",
    )(command)


def json_option(command: F) -> F:
    """Add --json, for programs that read the output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def reason_option(command: F) -> F:
    """Add --reason, for a decision that is recorded in the log; checked for its length and for UTF-8."""
    return click.option(
        "--reason",
        required=True,
        metavar="TEXT",
        callback=_check_reason,
        help=f"Record TEXT as the reason (1 to {REASON_CHARACTERS_MAX} characters).",
    )(command)


def host_option(command: F) -> F:
    """Add --host, the address to listen on."""
    return click.option("--host", metavar="ADDRESS", help="Listen on ADDRESS.  [default: $LEDGER_HOST or 127.0.0.1]")(
        command
    )


def port_option(command: F) -> F:
    """Add --port, the TCP port to listen on."""
    return click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        metavar="PORT",
        help="Listen on PORT; 0 selects a free port.  [default: $LEDGER_PORT or 8080]",
    )(command)


def _check_reason(context: click.Context, parameter: click.Parameter, reason: str) -> str:
    if not 1 <= len(reason) <= REASON_CHARACTERS_MAX:
        raise click.BadParameter(f"must have 1 to {REASON_CHARACTERS_MAX} characters")
    if any("\ud800" <= character <= "\udfff" for character in reason):
        # Python decodes bytes of an argument that are not UTF-8 as lone surrogates, which JSON cannot hold.
        raise click.BadParameter("must be text in UTF-8")
    return reason
