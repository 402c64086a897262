"""ledger events export and import: a whole history out of one ledger, and into another."""

from pathlib import Path

import click
from sqlalchemy import URL

from ledger.audit.export_file import STANDARD_STREAM, ExportFile, create_export, open_export
from ledger.audit.export_lines import read_lines, write_line
from ledger.audit.import_file import import_lines
from ledger.cli.common import (
    home_option,
    json_option,
    print_json,
    reachable_database,
    replay_bar,
    require_migrated,
    run,
    settings_for,
)
from ledger.database import Database
from ledger.log.notifications import notify_other_processes
from ledger.log.point_in_time import resolve_position
from ledger.log.read import EventFilter, read_all_salted, read_head


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--until", type=click.IntRange(0), help="The last position.  [default: the last event there is]")
@home_option
@json_option
def export(file: Path, until: int | None, home: Path | None, as_json: bool) -> None:
    """Write the log to FILE, an event a line, for `ledger events import` and `ledger verify --export`.

    Compressed where the name ends in .gz; - is stdout. A file that exists is never overwritten.
    """
    with reachable_database(settings_for(home)) as url:
        position = run(_export(url, file, until))
    # Stdout holds the export itself.
    if file == STANDARD_STREAM:
        return
    if as_json:
        print_json({"file": str(file), "events": position})
    else:
        click.echo(f"Exported {position:,} events to {file}.")


async def _export(url: URL, file: Path, until: int | None) -> int:
    database = Database(url)
    try:
        await require_migrated(database)
        async with database.connection() as connection:
            last = await read_head(connection) if until is None else await resolve_position(connection, until)
        with replay_bar("Exporting") as bar, create_export(file) as write:
            bar.begin(last)
            async for page in read_all_salted(database, EventFilter(until=last)):
                write(b"".join(map(write_line, page)))
                bar.progress(page[-1].position)
        return last
    finally:
        await database.close()


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@home_option
@json_option
def import_(file: Path, home: Path | None, as_json: bool) -> None:
    """Make the history of an empty ledger from the export in FILE (- is stdin): all of it or nothing.

    Positions, versions, ids, times and commitments stay, so the log keeps its root hash and its checkpoints.
    """
    with reachable_database(settings_for(home)) as url, open_export(file) as opened:
        position = run(_import(url, opened))
    if as_json:
        print_json({"events": position})
    else:
        click.echo(f"Imported {position:,} events. A worker folds them into the tables; `ledger status` shows how far.")


async def _import(url: URL, file: ExportFile) -> int:
    database = Database(url)
    try:
        await require_migrated(database)
        with replay_bar("Importing", "bytes") as bar:
            if file.size is not None:
                bar.begin(file.size)
            async with database.connection() as connection:
                position = await import_lines(
                    connection, read_lines(file.lines), lambda _: bar.progress(file.bytes_read)
                )
        await notify_other_processes(database)
        return position
    finally:
        await database.close()
