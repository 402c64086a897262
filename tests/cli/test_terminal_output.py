"""Control characters of clients and of the database reach neither a terminal nor a line of the log."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.control_characters import escape, escape_json
from ledger.database import Database
from projections.worker import fold_page
from tests.cli.helpers import REPOSITORY
from tests.cli.test_replay_commands import run_in_thread
from tests.events import campaign
from tests.log.helpers import query, record

ATTACK = "\x1b[2J\x9b2J\x7f\n\rClean: \u202e\u2028"
ESCAPED = r"\x1b[2J\x9b2J\x7f\n\rClean: \u202e\u2028"

PRINTS_OWN_TEXT_ONLY = {
    "admin",
    "bench",
    "databases",
    "event_loop",
    "export",
    "key_files",
    "listening",
    "output",
    "serve",
    "up",
}
"""Modules whose output has no values of clients or of the database, beside the one that escapes them."""

LOG = """
import logging, sys
from ledger.logging_setup import configure
configure("DEBUG", sys.argv[1])
attack, key = sys.argv[2:]
logger = logging.getLogger("ledger")
logger.warning("GET %s failed", attack, extra={"path": attack})
logger.debug("GET /v1/keys/%s", key, extra={"path": "/" + key, "request_id": key})
try:
    raise ValueError(f"{attack} {key}")
except ValueError as error:
    logger.error("failed", exc_info=error)
"""
KEY = "lgr_0123456789ab_" + "S" * 32 + "c" * 6


def test_all_control_characters_are_escaped_and_nothing_else() -> None:
    assert escape(ATTACK) == ESCAPED
    assert escape("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert escape("Grüße 日本 \\ 'x'") == "Grüße 日本 \\ 'x'"
    assert json.loads(escape_json(json.dumps({"a": ATTACK}, ensure_ascii=False))) == {"a": ATTACK}
    assert escape_json(json.dumps({"a": "\x9b"}, ensure_ascii=False, indent=2)) == '{\n  "a": "\\u009b"\n}'


def test_commands_that_print_values_of_the_database_escape_them() -> None:
    folder = REPOSITORY / "ledger" / "cli"
    modules = {file.stem for file in folder.glob("*.py") if "click.echo(" in file.read_text()}

    assert modules <= PRINTS_OWN_TEXT_ONLY, "use `echo` of ledger/cli/output.py"


async def test_verify_escapes_the_values_that_differ(database_url: URL, database: Database) -> None:
    await record(database, campaign())
    await fold_page(database)
    await query(database, "UPDATE campaigns SET name = $1", ATTACK)

    found = await run_in_thread("verify", database=database_url)
    as_json = await run_in_thread("verify", "--json", database=database_url)

    assert found.out.splitlines()[0].endswith(f" name: live {ESCAPED}, replayed {campaign()['data']['name']}")
    assert "\x9b" not in as_json.out
    assert json.loads(as_json.out)["differences"][0]["live"] == ATTACK


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_line_is_one_line_without_control_characters_and_without_keys(form: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOG, form, ATTACK, KEY], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = done.stderr.splitlines()

    assert not {"\x1b", "\x9b", "\x7f", "\r"} & set(done.stderr)
    assert "S" * 32 not in done.stderr
    assert "lgr_0123456789ab_..." in done.stderr or "lgr_0123456789ab..." in done.stderr
    if form == "json":
        assert [json.loads(line)["level"] for line in lines] == ["warning", "debug", "error"]
    else:
        assert f" GET {ESCAPED} failed " in lines[0]
        assert [line.split("[")[1].split("]")[0].strip() for line in lines[:3]] == ["warning", "debug", "error"]
