"""A new column of a read model is a migration and a rebuild: the recipe of ARCHITECTURE.md, followed on a copy."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.database.migrations import expected_revision
from projections.worker import fold_page
from tests.cli.helpers import Said, ledger, started
from tests.events import follow, job
from tests.log.helpers import query, record
from tests.migrations.helpers import REPOSITORY, alembic
from tests.projections.helpers import folded_up_to

NEXT_REVISION = f"{int(expected_revision()) + 1:04}"

MIGRATION = f'''"""What a job last said of its progress."""

from alembic import op

revision = "{NEXT_REVISION}"
down_revision = "{expected_revision()}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE agent_jobs ADD COLUMN message varchar(1000)")


def downgrade() -> None:
    op.execute("ALTER TABLE agent_jobs DROP COLUMN message")
'''

# File, a line of it, and what is put below that line.
EDITS = [
    (
        "projections/models.py",
        "    progress: Mapped[Decimal | None] = mapped_column(Amount)\n",
        "    message: Mapped[str | None] = mapped_column(String(1000))\n",
    ),
    (
        "projections/rows.py",
        "    progress: Decimal | None = None\n",
        "    message: str | None = None\n",
    ),
    (
        "projections/agent_jobs.py",
        "        row.progress = payload.progress if payload.progress is not None else row.progress\n",
        "        row.message = payload.message if payload.message is not None else row.message\n",
    ),
]


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """A copy of this checkout with one more column."""
    copy = tmp_path / "next release"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("ledger", "projections", "alembic"):
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=ignored)
    for file in ("alembic.ini", "pyproject.toml"):
        shutil.copy(REPOSITORY / file, copy / file)
    (copy / "alembic" / "versions" / f"{NEXT_REVISION}_job_message.py").write_text(MIGRATION)
    for name, line, below in EDITS:
        path = copy / name
        text = path.read_text()
        assert text.count(line) == 1, f"{name} has changed: mend this test and the recipe"
        path.write_text(text.replace(line, line + below))
    return copy


MESSAGES = "SELECT message FROM agent_jobs ORDER BY created_at, id"


async def test_a_new_column_is_filled_for_old_rows_by_a_rebuild_and_kept_by_the_worker(
    database: Database, database_url: URL, next_release: Path, tmp_path: Path
) -> None:
    old, meanwhile, new = job(), job(), job()

    async def tell(told: dict[str, object], message: str) -> None:
        for event in (told, follow(told, "job.started"), follow(told, "job.progressed", {"message": message})):
            await record(database, event)

    async def run(*arguments: str) -> Said:
        said = await ledger(*arguments, database=database_url, PYTHONPATH=str(next_release))
        assert said.code == 0, said
        return said

    await tell(old, "Before")
    await fold_page(database)
    await run("migrate")
    # The release before this one still works on the migrated database.
    await tell(meanwhile, "Meanwhile")
    folded_by_old_release = await fold_page(database)
    empty = await query(database, MESSAGES)
    rebuilt = await run("rebuild")
    filled = await query(database, MESSAGES)
    await tell(new, "After")
    async with started(tmp_path, "worker", database=database_url, PYTHONPATH=str(next_release)):
        await folded_up_to(database, 9)
    verified = await run("verify")
    drift = await alembic(database_url, "check", configuration=next_release / "alembic.ini")

    assert (folded_by_old_release, empty) == (3, [(None,), (None,)])
    assert "agent_jobs: 2 rows written, 0 removed" in rebuilt.out
    assert filled == [("Before",), ("Meanwhile",)]
    assert await query(database, MESSAGES) == [("Before",), ("Meanwhile",), ("After",)]
    assert "Clean" in verified.out
    assert drift.code == 0, drift
