"""`ledger` and `alembic` explain wrong settings, and databases that they cannot use, in a sentence."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import alembic.config
import pytest
from click.testing import CliRunner
from sqlalchemy import URL

from ledger.cli.main import main
from tests.cli.helpers import REPOSITORY, environment, plain, run
from tests.embedded.helpers import NOBODY, ServerUser
from tests.migrations.helpers import execute

pytestmark = pytest.mark.direct

SECRET = "wrong-secret"


class Outcome(NamedTuple):
    """Exit code and stderr; `None` if an exception was not explained."""

    code: int | None
    errors: str


Program = Callable[[dict[str, str]], Outcome]


def run_ledger(settings: dict[str, str]) -> Outcome:
    result = CliRunner().invoke(main, ["status"], env={name: settings.get(name, "") for name in {*SETTINGS, *settings}})
    return Outcome(result.exit_code if isinstance(result.exception, SystemExit | None) else None, result.stderr)


SETTINGS = {"DATABASE_URL", "DIRECT_DATABASE_URL", "REPLICA_DATABASE_URL", "DB_HOST", "LEDGER_HOME"}


@pytest.fixture(params=["ledger", "alembic"])
def program(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """Runs a program in this process with the given settings."""
    # A working directory without a developer's .env.
    monkeypatch.chdir(tmp_path)
    if request.param == "ledger":
        return run_ledger

    def run_alembic(settings: dict[str, str]) -> Outcome:
        for name in SETTINGS:
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        try:
            alembic.config.main(["-c", str(REPOSITORY / "alembic.ini"), "current"])
        except SystemExit as exit_:
            return Outcome(int(str(exit_.code)), capsys.readouterr().err)
        return Outcome(0, capsys.readouterr().err)

    return run_alembic


def placeholder(url: URL) -> str:
    return plain(url).replace(str(url.password), "[YOUR-PASSWORD]")


# What is wrong, the DATABASE_URL with it, and what the program says.
CASES: dict[str, tuple[Callable[[URL], str], str]] = {
    "password": (lambda url: plain(url.set(password=SECRET)), "refuses the user or the password"),
    "database": (lambda url: plain(url.set(database="nowhere")), "no such database"),
    "unescaped": (lambda url: f"postgresql://u:p@{SECRET}@127.0.0.1:5432/d", "Percent-encode"),
    "placeholder": (placeholder, "still contains a placeholder"),
    "host": (lambda url: plain(url.set(host="nowhere.invalid")), "host is not known"),
    "port": (lambda url: plain(url.set(port=1)), "nothing answers"),
    "timeout": (lambda url: f"{plain(url)}?connect_timeout=abc", "connect_timeout in DATABASE_URL must be a number"),
    "attributes": (lambda url: f"{plain(url)}?target_session_attrs=maybe", "must be one of any, primary"),
    "standby": (lambda url: f"{plain(url)}?target_session_attrs=standby", "target_session_attrs"),
    "durability, another spelling": (
        lambda url: f"{plain(url)}?options=-c%20Synchronous-Commit%3Doff",
        "synchronous_commit",
    ),
    "durability": (lambda url: f"{plain(url)}?options=-csynchronous_commit%3Doff", "synchronous_commit"),
    "unknown": (lambda url: f"{plain(url)}?keepalives=1", "'keepalives', which is not supported"),
    "twice": (lambda url: f"{plain(url)}?sslmode=require&sslmode=disable", "more than once"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_database_url_is_explained_in_a_sentence(program: Program, database_url: URL, case: str) -> None:
    make, words = CASES[case]

    outcome = program({"DATABASE_URL": make(database_url)})

    assert outcome.code in (1, 2), outcome
    assert outcome.errors.startswith("Error: ")
    assert words in outcome.errors
    assert len(outcome.errors.splitlines()) == 1
    assert SECRET not in outcome.errors


@pytest.mark.parametrize("options", ["options=-cgeqo%3Doff", "target_session_attrs=read-write", "connect_timeout=5"])
def test_options_of_libpq_are_accepted(program: Program, database_url: URL, options: str) -> None:
    outcome = program({"DATABASE_URL": f"{plain(database_url)}?{options}"})

    assert outcome.code == 0, outcome


def test_without_a_ledger_the_error_says_where_it_was_looked_for(program: Program, tmp_path: Path) -> None:
    home = tmp_path / "home"

    outcome = program({"LEDGER_HOME": str(home)})

    assert outcome.code == 1
    assert f"there is no ledger in {home}" in outcome.errors
    assert str(tmp_path / ".env") in outcome.errors
    assert "`ledger up`" in outcome.errors
    assert not home.exists()


@pytest.fixture
async def newer_url(database_url: URL) -> URL:
    """A database that a newer release has migrated."""
    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    return database_url


async def test_a_database_of_a_newer_release_is_named_as_such_by_every_program(newer_url: URL, tmp_path: Path) -> None:
    programs = [
        ("alembic", "-c", str(REPOSITORY / "alembic.ini"), "upgrade", "head"),
        ("ledger", "migrate"),
        ("ledger", "doctor"),
        ("ledger", "up", "--port", "0", "--home", str(tmp_path / "home")),
    ]
    folder = Path(sys.executable).parent

    results = [await run(folder / name, *rest, env=environment(newer_url)) for name, *rest in programs]

    for result in results:
        assert result.code == 1, result
        text = result.out + result.err
        assert "at revision 9999, which release" in text
        assert "run `ledger migrate`" not in text
        assert "Traceback" not in text


def test_a_home_that_cannot_be_used_is_not_taken_for_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.write_text("")

    result = CliRunner().invoke(main, ["up", "--port", "0", "--home", str(home)], env=dict.fromkeys(SETTINGS, ""))

    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert f"{home} cannot be used by" in result.stderr
    assert "--home" in result.stderr
    assert "database" not in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become another user")
def test_a_home_in_a_folder_of_another_user_is_named_with_the_next_step() -> None:
    with tempfile.TemporaryDirectory(prefix="ledger-closed-") as folder:
        os.chmod(folder, 0o755)

        output = ServerUser(Path(folder, "home"), NOBODY).output()

    assert "cannot be used by nobody: Permission denied" in output
    assert "choose another home with --home or LEDGER_HOME" in output
