"""A new column of a read model is a migration and a rebuild, tested on a copy of the repository."""

from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections.worker import fold_page
from tests.cli.helpers import CommandResult, ledger, started
from tests.events import follow, job
from tests.log.helpers import query, record
from tests.migrations.helpers import alembic
from tests.next_release import Edit, NextRelease, add_column
from tests.projections.helpers import folded_up_to

# The column holds free text, so its model declares it with `info=FREE_TEXT`.
EDITS = [
    add_column("job_message", "agent_jobs", "message varchar(1000)"),
    Edit(
        "projections/models/agent_jobs.py",
        '    progress: Mapped[Decimal | None] = mapped_column(Amount, comment="From 0 to 1, as last reported.")\n',
        "    message: Mapped[str | None] = mapped_column(String(1000), info=FREE_TEXT)\n",
    ),
    Edit(
        "projections/rows.py",
        "    progress: Decimal | None = None\n",
        "    message: str | None = None\n",
    ),
    Edit(
        "projections/agent_jobs.py",
        "        row.progress = payload.progress if payload.progress is not None else row.progress\n",
        # Erased, it is null: the same as never reported.
        "        row.message = payload.message if payload.message is not None else row.message\n",
    ),
]


@pytest.fixture
def next_release(tmp_path: Path) -> NextRelease:
    """A copy of this checkout with one more column."""
    release = NextRelease(tmp_path / "next release")
    release.edit(EDITS)
    return release


MESSAGES = "SELECT message FROM agent_jobs ORDER BY created_at, id"


async def test_a_rebuild_fills_a_new_column_the_worker_maintains_it_and_an_erasure_clears_it(
    database: Database, database_url: URL, next_release: NextRelease, tmp_path: Path
) -> None:
    before, meanwhile, after = job(), job(), job()

    async def report(queued: dict[str, object], message: str) -> None:
        progressed = follow(queued, "job.progressed", {"message": message})
        for event in (queued, follow(queued, "job.started"), progressed):
            await record(database, event)

    async def run(*arguments: str) -> CommandResult:
        ended = await ledger(*arguments, database=database_url, PYTHONPATH=str(next_release.folder))
        assert ended.code == 0, ended
        return ended

    await report(before, "Before")
    await fold_page(database)
    await run("migrate")
    # The release before this one still works on the migrated database.
    await report(meanwhile, "Meanwhile")
    folded_by_old_release = await fold_page(database)
    empty = await query(database, MESSAGES)
    rebuilt = await run("rebuild")
    filled = await query(database, MESSAGES)
    await report(after, "After")
    async with started(tmp_path, "worker", database=database_url, PYTHONPATH=str(next_release.folder)):
        await folded_up_to(database, 9)
        maintained = await query(database, MESSAGES)
        for position in ("3", "9"):
            await run("events", "erase", position, "--reason", "Requested by its author")
        await folded_up_to(database, 11)
    erased = await query(database, MESSAGES)
    verified = await run("verify")
    rebuilt_again = await run("rebuild")
    drift = await alembic(database_url, "check", configuration=next_release.folder / "alembic.ini")

    assert (folded_by_old_release, empty) == (3, [(None,), (None,)])
    assert "agent_jobs:     2 rows written, 0 removed" in rebuilt.out
    assert filled == [("Before",), ("Meanwhile",)]
    assert maintained == [("Before",), ("Meanwhile",), ("After",)]
    assert erased == [(None,), ("Meanwhile",), (None,)]
    assert "Clean" in verified.out
    assert "agent_jobs:     0 rows written, 0 removed" in rebuilt_again.out
    assert drift.code == 0, drift


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_column_of_free_text_that_is_not_declared_as_such_fails_a_test_that_names_it(
    next_release: NextRelease, forgotten: bool
) -> None:
    models = next_release.folder / "projections" / "models" / "agent_jobs.py"
    if forgotten:
        models.write_text(models.read_text().replace("String(1000), info=FREE_TEXT)", "String(1000))"))

    code, output = next_release.run_tests("tests/projections/test_tables.py")

    assert code == (1 if forgotten else 0), output
    assert ("agent_jobs.message depends on job.progressed.message, which is free text" in output) == forgotten
