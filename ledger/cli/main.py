"""The command `ledger` and its subcommands."""

import signal
import sys

import click

import ledger
from ledger.cli.admin import migrate, reset, seed
from ledger.cli.audit import audit
from ledger.cli.backup import backup, restore, upgrade_embedded
from ledger.cli.bench import bench
from ledger.cli.doctor import doctor
from ledger.cli.events import events
from ledger.cli.examples import add_help
from ledger.cli.export import export, import_
from ledger.cli.keys import keys
from ledger.cli.prices import prices
from ledger.cli.projections import projections
from ledger.cli.replay import rebuild, replay, verify
from ledger.cli.serve import serve, worker
from ledger.cli.status import status
from ledger.cli.up import up


@click.group()
@click.version_option(ledger.__version__, prog_name="ledger")
def main() -> None:
    """Run, inspect and repair the event-sourced budget and job ledger.

    To try it, run `ledger up --demo`.

    Settings are read from the environment and from the file .env. An embedded PostgreSQL is used unless DATABASE_URL or
    DB_HOST is set. Exit codes: 0 for success, 1 for an error or a problem found, 2 for wrong usage or settings.
    """
    # By default SIGTERM would end this process at once, and leave an embedded PostgreSQL running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


for command in (export, import_):
    events.add_command(command)

COMMANDS = (
    up,
    serve,
    worker,
    migrate,
    seed,
    reset,
    status,
    doctor,
    events,
    verify,
    rebuild,
    replay,
    projections,
    prices,
    audit,
    keys,
    backup,
    restore,
    upgrade_embedded,
    bench,
)

for command in COMMANDS:
    main.add_command(command)

add_help(main)
