"""ledger verify, rebuild and replay: the read models against the log they come from."""

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import click
import msgspec
from sqlalchemy import URL

from ledger.audit.signing_files import LocalCheckpoint
from ledger.cli import verify_export
from ledger.cli.common import (
    home_option,
    json_option,
    owners_database,
    print_json,
    replay_bar,
    require_migrated,
    run,
    settings_for,
    signing_files,
)
from ledger.cli.databases import require_session
from ledger.database import Database
from ledger.domain.errors import Malformed
from ledger.log.point_in_time import parse_point_in_time
from projections.checkpoint import PROJECTIONS
from projections.differences import Difference
from projections.rebuild import Rebuilt
from projections.rebuild import rebuild as rebuild_tables
from projections.replay import TABLES
from projections.skips import Skip
from projections.snapshots import Replayed, replay_into
from projections.verify import Report
from projections.verify import verify as verify_tables

SHOWN_CHARACTERS = 100


@click.command()
@verify_export.options
@home_option
@json_option
def verify(export: Path | None, checkpoint: Path | None, key: str | None, home: Path | None, as_json: bool) -> None:
    """Replay the log beside the tables and print every difference. Nothing is changed.

    Exit code 1 when there is one, or when the log itself has a gap.

    With --export, --checkpoint and --key no database is touched: the export is proved against the signed checkpoint,
    and its events are replayed by the ledger's rules.
    """
    if export is not None or checkpoint is not None or key is not None:
        verify_export.verify(export, checkpoint, key, as_json)
    differences: list[Difference] = []
    settings = settings_for(home)
    with owners_database(settings) as url:
        report = run(_verify(url, differences, signing_files(settings).read(), as_json))
    if as_json:
        print_json({"clean": report.is_clean, **msgspec.structs.asdict(report), "differences": differences})
    else:
        _print_skips(report.skipped)
        for fault in report.faults:
            click.echo(f"Fault: {fault}")
        if report.is_clean:
            click.echo(f"Clean: the tables at position {report.position:,} of {report.head:,} are what the log says.")
        else:
            click.echo(f"Found: {report.differences:,} differences, {len(report.faults):,} faults of the log.")
            if report.differences:
                click.echo("`ledger rebuild` makes the read models what the log says; look first how they changed.")
    sys.exit(0 if report.is_clean else 1)


async def _verify(url: URL, differences: list[Difference], kept: LocalCheckpoint | None, as_json: bool) -> Report:
    database = Database(url)
    try:
        await require_migrated(database)
        require_session(database)
        with replay_bar("Replaying") as bar:

            def show(difference: Difference) -> None:
                if as_json:
                    differences.append(difference)
                    return
                bar.end()
                live, replayed = _short(difference.live), _short(difference.replayed)
                click.echo(f"{difference.table} {difference.id} {difference.column}: live {live}, replayed {replayed}")

            return await verify_tables(database, show, kept, bar.progress, bar.begin)
    finally:
        await database.close()


def _short(value: str | None) -> str:
    if value is None:
        return "null"
    return value if len(value) <= SHOWN_CHARACTERS else f"{value[: SHOWN_CHARACTERS - 3]}..."


@click.command()
@click.option("--projection", type=click.Choice(PROJECTIONS), help="Only this table.  [default: all four]")
@home_option
@json_option
def rebuild(projection: str | None, home: Path | None, as_json: bool) -> None:
    """Make the read models what the log says, while reads and appends go on."""
    with owners_database(settings_for(home)) as url:
        rebuilt = run(_rebuild(url, [projection] if projection else TABLES))
    if as_json:
        print_json(rebuilt)
        return
    _print_skips(rebuilt.skipped)
    for table in rebuilt.written:
        click.echo(f"{table}: {rebuilt.written[table]:,} rows written, {rebuilt.removed.get(table, 0):,} removed")
    click.echo(f"The read models at position {rebuilt.position:,} are what the log says.")
    if rebuilt.not_compared:
        click.echo(f"The balances were not compared: {rebuilt.not_compared}")


async def _rebuild(url: URL, tables: Iterable[str]) -> Rebuilt:
    database = Database(url)
    try:
        await require_migrated(database)
        require_session(database)
        with replay_bar("Replaying") as bar:
            return await rebuild_tables(database, list(tables), bar.progress, bar.begin)
    finally:
        await database.close()


@click.command()
@click.option("--until", required=True, help="A position, or an RFC 3339 time of recording; inclusive.")
@click.option("--schema", required=True, help="A new schema for the four tables.")
@home_option
@json_option
def replay(until: str, schema: str, home: Path | None, as_json: bool) -> None:
    """Leave the four tables as they stood, in a schema of their own to be queried."""
    try:
        moment = parse_point_in_time(until)
    except Malformed as error:
        raise click.UsageError(f"--until: {error}") from None
    with owners_database(settings_for(home)) as url:
        replayed = run(_replay(url, moment, schema))
    if as_json:
        print_json(replayed)
        return
    _print_skips(replayed.skipped)
    when = f", recorded {replayed.recorded_at}" if replayed.recorded_at else ""
    click.echo(f"The schema {replayed.schema} holds the tables as of position {replayed.position:,}{when}.")
    click.echo(f"Query {replayed.schema}.campaigns and so on; drop it with DROP SCHEMA {replayed.schema} CASCADE.")


async def _replay(url: URL, until: int | datetime, schema: str) -> Replayed:
    database = Database(url)
    try:
        await require_migrated(database)
        require_session(database)
        with replay_bar("Replaying") as bar:
            return await replay_into(database, schema, until, bar.progress, bar.begin)
    finally:
        await database.close()


def _print_skips(skips: Iterable[Skip]) -> None:
    for skip in skips:
        click.echo(
            f"Skipped: {skip.event_type} at position {skip.position}, decided by {skip.by} at {skip.skipped_at}: "
            f"{skip.reason}"
        )
