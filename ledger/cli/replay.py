"""ledger verify, rebuild and replay: compare, correct or recreate the read models from the log."""

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import click
import msgspec
from sqlalchemy import URL

from ledger.cli import verify_export
from ledger.cli.databases import database_folder, migrated_database, owner_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, echo, print_json, progress_bar
from ledger.cli.settings import settings_for, signing_files
from ledger.config import Settings
from ledger.domain.errors import Malformed
from ledger.log.point_in_time import parse_point_in_time
from projections.differences import Difference
from projections.rebuild import RebuildReport
from projections.rebuild import rebuild as rebuild_tables
from projections.skips import Skip
from projections.snapshots import Snapshot, replay_into
from projections.tables import NAMES
from projections.verify import VerificationReport
from projections.verify import verify as verify_tables

VALUE_CHARACTERS_MAX = 100
"""Characters of a differing value that `verify` prints."""


@click.command()
@verify_export.export_options
@home_option
@json_option
def verify(
    export: Path | None, checkpoint: Path | None, key: str | None, partial: bool, home: Path | None, as_json: bool
) -> None:
    """Verify the tables, the balances and the seal.

    The log is replayed and compared with the stored tables and balances; its signed checkpoint, every stored column and
    the guards of the tables are checked too. Every difference is printed; nothing is changed. The exit code is 1 if
    there is a difference or if the log itself is damaged. Connects as the owner (DIRECT_DATABASE_URL) if that is set.

    With --export, --checkpoint and --key no database is used: the export is verified against the signed checkpoint, and
    its events against the ledger's rules.
    """
    if partial or any(option is not None for option in (export, checkpoint, key)):
        verify_export.verify(export, checkpoint, key, is_partial=partial, as_json=as_json)
    differences: list[Difference] = []
    settings = settings_for(home)
    with owner_url(settings) as url:
        report = run_async(_verify(url, differences, settings, as_json))
    if as_json:
        print_json({"clean": report.is_clean, **msgspec.structs.asdict(report), "differences": differences})
    else:
        _print_report(report)
    sys.exit(0 if report.is_clean else 1)


def _print_report(report: VerificationReport) -> None:
    _print_skips(report.skipped)
    for fault in report.faults:
        echo(f"Fault: {fault}")
    if report.is_clean:
        echo(f"Clean: the tables at position {report.position:,} of {report.head:,} match the log.")
        return
    echo(f"Found {counted(report.differences, 'difference')} and {counted(len(report.faults), 'fault')} of the log.")
    if report.faults:
        echo(
            "Next: find out who changed the log or its guards, keep a copy of the database, and restore it from a "
            "backup. Until then, accept nothing and rebuild nothing."
        )
    elif report.differences:
        echo("Next: find out how the tables were changed, then correct them with `ledger rebuild`.")


async def _verify(url: URL, differences: list[Difference], settings: Settings, as_json: bool) -> VerificationReport:
    async with migrated_database(url, needs_session=True) as database:
        local_checkpoint = signing_files(settings, await database_folder(database, settings)).read()
        with progress_bar("Replaying") as bar:

            def show(difference: Difference) -> None:
                if as_json:
                    differences.append(difference)
                    return
                bar.end()
                live, replayed = _shorten(difference.live), _shorten(difference.replayed)
                echo(f"{difference.table} {difference.id} {difference.column}: live {live}, replayed {replayed}")

            return await verify_tables(database, show, local_checkpoint, bar.progress, bar.begin)


def _shorten(value: str | None) -> str:
    if value is None:
        return "null"
    return value if len(value) <= VALUE_CHARACTERS_MAX else f"{value[: VALUE_CHARACTERS_MAX - 3]}..."


@click.command()
@click.option("--projection", type=click.Choice(NAMES), help="Rebuild only this table.  [default: all]")
@home_option
@json_option
def rebuild(projection: str | None, home: Path | None, as_json: bool) -> None:
    """Correct the read models from the log, without downtime.

    The log is replayed, and compared with the tables while reads and appends continue. Only rows that differ are
    written. Unless one table is chosen, wrong balances are corrected too. Connects as the owner (DIRECT_DATABASE_URL)
    if that is set.
    """
    with owner_url(settings_for(home)) as url:
        rebuilt = run_async(_rebuild(url, [projection] if projection else NAMES))
    if as_json:
        print_json(rebuilt)
        return
    _print_skips(rebuilt.skipped)
    for table in rebuilt.written:
        written, removed = counted(rebuilt.written[table], "row"), rebuilt.removed.get(table, 0)
        echo(f"{table + ':':15} {written} written, {removed:,} removed")
    echo(f"The read models match the log at position {rebuilt.position:,}.")
    if rebuilt.not_compared:
        echo(f"The balances were not compared: {rebuilt.not_compared}")


async def _rebuild(url: URL, tables: Iterable[str]) -> RebuildReport:
    async with migrated_database(url, needs_session=True) as database:
        with progress_bar("Replaying") as bar:
            return await rebuild_tables(database, list(tables), bar.progress, bar.begin)


@click.command()
@click.option("--until", required=True, metavar="POINT", help="Replay up to this position or RFC 3339 time, inclusive.")
@click.option("--schema", required=True, metavar="NAME", help="Create the schema NAME for the tables.")
@home_option
@json_option
def replay(until: str, schema: str, home: Path | None, as_json: bool) -> None:
    """Recreate the read models as of a point in time.

    The tables are written to a new schema; the live tables are not changed. POINT is a position, or a time of
    recording such as 2025-01-31T12:00:00Z. Connects as the owner (DIRECT_DATABASE_URL) if that is set.
    """
    try:
        point_in_time = parse_point_in_time(until)
    except Malformed as error:
        raise click.UsageError(f"--until: {error}") from None
    with owner_url(settings_for(home)) as url:
        replayed = run_async(_replay(url, point_in_time, schema))
    if as_json:
        print_json(replayed)
        return
    _print_skips(replayed.skipped)
    recorded = f", recorded {replayed.recorded_at}" if replayed.recorded_at else ""
    echo(f"The schema {replayed.schema} holds the tables as of position {replayed.position:,}{recorded}.")
    echo(f"Query {replayed.schema}.campaigns and so on; remove it with: DROP SCHEMA {replayed.schema} CASCADE")


async def _replay(url: URL, until: int | datetime, schema: str) -> Snapshot:
    async with migrated_database(url, needs_session=True) as database:
        with progress_bar("Replaying") as bar:
            return await replay_into(database, schema, until, bar.progress, bar.begin)


def _print_skips(skips: Iterable[Skip]) -> None:
    for skip in skips:
        echo(
            f"Skipped: {skip.event_type} at position {skip.position:,}, decided by {skip.by} at {skip.skipped_at}: "
            f"{skip.reason}"
        )
