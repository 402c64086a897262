"""The recipes of ARCHITECTURE.md for an event type and a column, followed on a copy of the checkout.

The new type has a free text that fills a new column. Exactly the files that the recipes list are edited. If one of them
is forgotten, a test of the copy fails and names what is missing.
"""

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import Database
from scripts.source_texts import REPOSITORY
from tests.cli.helpers import CommandResult, ledger, plain, started
from tests.events import follow, job
from tests.log.helpers import query
from tests.migrations.helpers import alembic
from tests.next_release import REVISION, Edit, NextRelease, add_column
from tests.projections.helpers import folded_up_to
from tests.servers.kinds import direct_url

MIGRATION = add_column("job_note", "agent_jobs", "note varchar(1000)")

STRUCT = '''

class JobNoted(EventData, frozen=True, kw_only=True):
    """A note was added to the job."""

    note: Annotated[Message, msgspec.Meta(description="A note for people. Free text; it can be erased.")]
'''

FOLD = """    elif isinstance(payload, job.JobNoted):
        # Erased, it is "".
        row.note = payload.note or None
"""

EDITS = [
    Edit("ledger/domain/job.py", "    message: Message | None = None\n", STRUCT),
    Edit(
        "ledger/domain/job.py",
        '    EventType("job.progressed", JobProgressed, Transition(("running",))),\n',
        '    EventType("job.noted", JobNoted, Transition(("pending", "running"))),\n',
    ),
    Edit(
        "projections/agent_jobs.py",
        "        row.progress = payload.progress if payload.progress is not None else row.progress\n",
        FOLD,
    ),
    Edit(
        "tests/domain/golden/job.noted.v1.json",
        None,
        json.dumps([{"data": "{}", "text": '{"note":"Needs a key"}', "reads": {"note": "Needs a key"}}]),
    ),
    Edit(
        "tests/domain/contract.py",
        '    "job.progressed": Row("running", SAME, "", "progress message"),\n',
        '    "job.noted": Row("pending running", SAME, "note"),\n',
    ),
    MIGRATION,
    Edit(
        "projections/models/agent_jobs.py",
        '    progress: Mapped[Decimal | None] = mapped_column(Amount, comment="From 0 to 1, as last reported.")\n',
        "    note: Mapped[str | None] = mapped_column(String(1000), info=FREE_TEXT)\n",
    ),
    Edit("projections/rows.py", "    progress: Decimal | None = None\n", "    note: str | None = None\n"),
]

SCRIPTS = ("update_reference.py", "update_map.py")

PLACEHOLDERS = {
    "<noun>": "job",
    "<type>": "job.noted",
    "<table>": "agent_jobs",
    "<revision>": REVISION,
    "<change>": "job_note",
}


MESSAGES = {
    "ledger/domain/job.py": ("types in the table that ledger/domain does not declare", "{'job.noted'}"),
    "projections/agent_jobs.py": ("fold it in projections/agent_jobs.py", "job.noted changes no column"),
    "tests/domain/golden/job.noted.v1.json": ("add these files to tests/domain/golden", "{'job.noted.v1.json'}"),
    "tests/domain/contract.py": ("add a row for each of these types to tests/domain/contract.py", "{'job.noted'}"),
    "docs/reference/events.md": ("run scripts/update_reference.py", "['docs/reference/events.md']"),
    MIGRATION.file: ("add a migration to alembic/versions", "'agent_jobs', Column('note'"),
    "projections/models/agent_jobs.py": ("AgentJobRow that projections/models/agent_jobs.py lacks", "{'note'}"),
    "projections/rows.py": ("agent_jobs that AgentJobRow in projections/rows.py lacks", "{'note'}"),
    "docs/map.md": ("Run scripts/update_map.py", f"{MIGRATION.file} is not in docs/map.md"),
}
"""What the tests print if a file is forgotten: the advice, and what it is about."""

FURTHER_TESTS = (
    "tests/domain/test_event_types.py",
    "tests/domain/test_shapes.py",
    "tests/domain/test_machine.py",
    "tests/projections/test_job_rows.py",
    "tests/projections/test_worker.py::test_the_sample_history_has_every_event_type_of_the_catalogue",
    "tests/house/test_sizes.py",
)
"""Tests that the new type and the new column must pass, beside those that the recipes name."""


def listed_guards() -> dict[str, str]:
    """Return the files that both recipes list, each with the test that fails if it is forgotten."""
    recipes = (REPOSITORY / "ARCHITECTURE.md").read_text().partition("## Recipes")[2]
    for placeholder, value in PLACEHOLDERS.items():
        recipes = recipes.replace(placeholder, value)
    guards = {}
    for title in ("A new event type", "A new column"):
        steps = recipes.partition(f"**{title}")[2].partition("\n\n**")[0]
        guards |= dict(re.findall(r"^\d\. `([^`]+)`(?:(?!^\d\. ).)*?→ `([^`]+)`", steps, re.MULTILINE | re.DOTALL))
    return guards


GUARDS = listed_guards()


def guard_of(file: str) -> str:
    """Return the test to run; of the slow tests of the migrations only the one that compares with the models."""
    only = "::test_the_migrations_create_the_tables_of_the_models" if file == MIGRATION.file else ""
    return GUARDS[file] + only


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> NextRelease:
    """A copy to which both recipes were applied."""
    release = NextRelease(tmp_path_factory.mktemp("next release"))
    release.edit(EDITS)
    for script in SCRIPTS:
        release.run_script(script)
    return release


@pytest.fixture
def server(server_url: URL) -> dict[str, str]:
    """The setting with which tests of the copy use the server of this run."""
    return {"LEDGER_TEST_DATABASE_URL": plain(direct_url(server_url))}


def test_exactly_the_files_of_the_recipes_are_edited_and_the_tests_pass(
    next_release: NextRelease, server: dict[str, str]
) -> None:
    edited = next_release.edited_files()
    code, output = next_release.run_tests(*{guard_of(file) for file in GUARDS}, *FURTHER_TESTS, **server)

    assert edited == set(GUARDS) == set(MESSAGES)
    assert code == 0, output


async def test_the_new_type_is_recorded_folded_erased_and_verified(
    next_release: NextRelease, database: Database, database_url: URL, tmp_path: Path
) -> None:
    pythonpath = str(next_release.folder)
    queued = job()
    sent = [queued, follow(queued, "job.noted", {"note": "Needs a key"})]

    async def run(*arguments: str, stdin: bytes = b"") -> CommandResult:
        ended = await ledger(*arguments, database=database_url, stdin=stdin, PYTHONPATH=pythonpath)
        assert ended.code == 0, ended
        return ended

    async def notes() -> list[tuple[str | None]]:
        return await query(database, "SELECT note FROM agent_jobs")

    await run("migrate")
    await run("events", "append", stdin=json.dumps(sent).encode())
    async with started(tmp_path, "worker", database=database_url, PYTHONPATH=pythonpath):
        await folded_up_to(database, 2)
        folded = await notes()
        await run("events", "erase", "2", "--reason", "Requested by its author")
        await folded_up_to(database, 3)
        erased = await notes()
    verified = await run("verify")
    drift = await alembic(database_url, "check", configuration=next_release.folder / "alembic.ini")

    assert (folded, erased) == ([("Needs a key",)], [(None,)])
    assert "Clean" in verified.out
    assert drift.code == 0, drift


@pytest.mark.parametrize("file", GUARDS)
def test_a_forgotten_file_fails_a_test_that_names_it(
    next_release: NextRelease, server: dict[str, str], file: str
) -> None:
    with next_release.without_edits(file):
        code, output = next_release.run_tests(guard_of(file), **server)

    assert code == 1, output
    assert all(message in output for message in MESSAGES[file]), output
