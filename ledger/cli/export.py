"""ledger events export and import: write the log to a file, and recreate it in an empty ledger."""

from pathlib import Path

import click
from sqlalchemy import URL

from ledger.audit.export_file import STANDARD_STREAM, ExportFile, create_export, open_export
from ledger.audit.export_lines import read_lines, write_line
from ledger.audit.import_file import import_lines
from ledger.cli.databases import migrate_new_database, migrated_database, require_migrated, service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, print_json, progress_bar
from ledger.cli.settings import settings_for
from ledger.config import Settings
from ledger.database import Database
from ledger.log.complete_export import last_erasure, read_with_erasures
from ledger.log.notifications import notify_other_processes
from ledger.log.point_in_time import resolve_position
from ledger.log.read import EventFilter, read_all_salted, read_head

ERASED_LATER = (
    "Note: free texts of these events were erased after position {last:,}. If the file lacks them, `ledger events "
    "import` refuses it, and `ledger verify` needs --partial. Export the log up to position {until:,} to include the "
    "records of the erasures."
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--until", type=click.IntRange(0), metavar="POSITION", help="Stop after POSITION.  [default: the end of the log]"
)
@home_option
@json_option
def export(file: Path, until: int | None, home: Path | None, as_json: bool) -> None:
    """Write the log to FILE, one event per line.

    FILE can be - for standard output. The file is for `ledger events import` and `ledger verify --export`. It is
    compressed with gzip if its name ends in .gz. An existing file is never overwritten.
    """
    with service_url(settings_for(home)) as url:
        last, erased_later = run_async(_export(url, file, until))
    if erased_later:
        click.echo(ERASED_LATER.format(last=last, until=erased_later), err=True)
    # Standard output holds the export itself.
    if file == STANDARD_STREAM:
        return
    if as_json:
        print_json({"file": str(file), "events": last})
    else:
        click.echo(f"Exported {counted(last, 'event')} to {file}.")


async def _export(url: URL, file: Path, until: int | None) -> tuple[int, int]:
    """Write the file; return its last position, and that of the last record of an erasure that it lacks, or 0."""
    async with migrated_database(url) as database:
        async with database.connection() as connection:
            last = await read_head(connection) if until is None else await resolve_position(connection, until)
        pages = (
            read_with_erasures(database, 0, last) if until is None else read_all_salted(database, EventFilter(0, last))
        )
        with progress_bar("Exporting") as bar, create_export(file) as write:
            bar.begin(last)
            async for page in pages:
                write(b"".join(map(write_line, page)))
                last = page[-1].position
                bar.progress(last)
        async with database.connection() as connection:
            return last, 0 if until is None else await last_erasure(connection, last)


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@home_option
@json_option
def import_(file: Path, home: Path | None, as_json: bool) -> None:
    """Import the export in FILE into an empty ledger.

    FILE can be - for standard input. All events are imported, or none. Positions, versions, ids, times and commitments
    are kept, so the log has the same root hash and its checkpoints stay valid. A new embedded PostgreSQL is created and
    migrated first if no database is configured.
    """
    settings = settings_for(home)
    with service_url(settings, create=True) as url, open_export(file) as opened:
        imported = run_async(_import(settings, url, opened))
    if as_json:
        print_json({"events": imported})
    else:
        click.echo(f"Imported {counted(imported, 'event')}. A worker updates the read models; see `ledger status`.")


async def _import(settings: Settings, url: URL, file: ExportFile) -> int:
    async with Database(url) as database:
        await migrate_new_database(database, settings)
        await require_migrated(database)
        with progress_bar("Importing", "bytes") as bar:
            if file.size is not None:
                bar.begin(file.size)
            async with database.connection() as connection:
                position = await import_lines(
                    connection, read_lines(file.lines), lambda _: bar.progress(file.bytes_read)
                )
        await notify_other_processes(database)
        return position
