"""`ledger events export`, `import`, `verify --export`: a log copied to a file and checked there."""

import gzip
import json
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections.worker import fold_page
from tests.audit.exports import SIGNER, checkpoint_of, export_of, read, recorded_story
from tests.audit.exports import erased as erased_event
from tests.cli.helpers import CommandResult, ledger
from tests.conftest import administer
from tests.events import campaign, cost
from tests.log.erasures import erased
from tests.log.helpers import record, value
from tests.projections.helpers import append_requests, sample_history

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
"""The URL of no database: a command that succeeds with it needs none."""

EVENTS = "SELECT count(*) FROM ledger.events"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export, a checkpoint of all its events except the last two, and the key."""
    folder = tmp_path_factory.mktemp("exported")
    export = export_of(recorded_story())
    (folder / "log.gz").write_bytes(gzip.compress(export))
    (folder / "checkpoint").write_bytes(checkpoint_of(export, len(export.splitlines()) - 2).note)
    (folder / "key").write_text(SIGNER.verifier.text + "\n")
    return folder


async def verify(
    exported: Path, *more: str | Path, export: Path | None = None, key: str | Path | None = None
) -> CommandResult:
    files = (
        "--export",
        export or exported / "log.gz",
        "--checkpoint",
        exported / "checkpoint",
        "--key",
        key or exported / "key",
    )
    return await ledger("verify", *files, *more, database=NOWHERE)


@pytest.mark.parametrize("name", ["log.ndjson", "log.ndjson.gz"])
async def test_an_export_can_be_imported_into_an_empty_ledger_and_verified(
    server_url: URL, template: str, database_url: URL, database: Database, tmp_path: Path, name: str
) -> None:
    await append_requests(database, sample_history())
    events = await value(database, EVENTS)
    copy = server_url.set(database=f"{database_url.database}_copy")
    await administer(server_url, f"CREATE DATABASE {copy.database} TEMPLATE {template}")

    out = await ledger("events", "export", tmp_path / name, database=database_url)
    into = await ledger("events", "import", tmp_path / name, database=copy)
    twice = await ledger("events", "import", tmp_path / name, database=copy)
    clean = await ledger("verify", database=copy)
    again = await ledger("events", "export", "-", database=copy)
    await administer(server_url, f"DROP DATABASE {copy.database} WITH (FORCE)")

    assert (out.code, out.out) == (0, f"Exported {events} events to {tmp_path / name}.\n")
    assert (into.code, into.out.split(".")[0]) == (0, f"Imported {events} events")
    assert (twice.code, twice.out) == (1, "")
    assert f"Error: the ledger already has {events} events; import into an empty one" in twice.err
    assert clean.code == 0
    written = (tmp_path / name).read_bytes()
    assert again.out.encode() == (gzip.decompress(written) if name.endswith(".gz") else written)


async def test_an_export_ends_at_the_given_position_and_overwrites_nothing(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    await record(database, *(cost() for _ in range(3)))
    file = tmp_path / "log"

    two = await ledger("events", "export", file, "--until", "2", "--json", database=database_url)
    again = await ledger("events", "export", file, database=database_url)
    too_far = await ledger("events", "export", tmp_path / "far", "--until", "4", database=database_url)
    wrong = await ledger("events", "export", tmp_path / "far", "--until", "-1", database=database_url)

    assert (two.code, json.loads(two.out)) == (0, {"file": str(file), "events": 2})
    assert [line.event.position for line in read(file.read_bytes())] == [1, 2]
    assert (again.code, again.err) == (1, f"Error: {file} already exists; choose another name, or remove it\n")
    assert (too_far.code, too_far.err) == (1, "Error: the log ends at position 3; position 4 does not exist yet\n")
    assert wrong.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


async def test_an_import_reads_standard_input_and_an_error_names_its_line(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    export = export_of(recorded_story())

    cut = await ledger("events", "import", "-", database=database_url, stdin=export[:-1])
    before = await value(database, EVENTS)
    missing = await ledger("events", "import", tmp_path / "away", database=database_url)
    whole = await ledger("events", "import", "-", "--json", database=database_url, stdin=gzip.compress(export))

    lines = len(export.splitlines())
    assert (cut.code, cut.err) == (
        1,
        f"Error: line {lines}: the file ends in the middle of the line: it was truncated\n",
    )
    assert (before, missing.code) == (0, 1)
    assert (whole.code, json.loads(whole.out)) == (0, {"events": lines})
    assert await fold_page(database) == lines


async def test_an_export_is_verified_without_a_database(exported: Path) -> None:
    events = len(gzip.decompress((exported / "log.gz").read_bytes()).splitlines())

    in_words = await verify(exported, key=SIGNER.verifier.text)
    as_json = await verify(exported, "--json")

    assert in_words.code == 0, in_words.err
    assert in_words.out.startswith(f"Proved: {events - 2} events of ledger.example/log, root ")
    assert "\nNot sealed: 2 later events" in in_words.out
    assert "\nUSD: 22 spent, 1 held\n" in in_words.out
    answer = json.loads(as_json.out)
    assert (as_json.code, answer["proved"], answer["sealed"], answer["not_sealed"]) == (0, True, events - 2, 2)
    assert answer["currencies"] == {"USD": {"spent": "22", "held": "1"}}
    assert [(each["status"], each["spent"]) for each in answer["campaigns"]] == [
        ("completed", "20"),
        ("deleted", "0"),
        ("deleted", "0"),
    ]


async def test_missing_texts_without_a_record_of_their_erasure_fail_unless_the_export_is_partial(
    exported: Path, tmp_path: Path
) -> None:
    stripped = export_of(erased_event(event) for event in recorded_story())
    (tmp_path / "log").write_bytes(stripped)
    (tmp_path / "checkpoint").write_bytes(checkpoint_of(stripped).note)
    files = ("--export", tmp_path / "log", "--checkpoint", tmp_path / "checkpoint", "--key", exported / "key")

    whole = await ledger("verify", *files, database=NOWHERE)
    partial = await ledger("verify", *files, "--partial", database=NOWHERE)
    alone = await ledger("verify", "--partial", database=NOWHERE)

    assert (whole.code, partial.code, alone.code) == (1, 0, 2)
    assert whole.out.startswith("Not proved: the free text of ")
    assert "\nMissing: the free text of " in partial.out


async def test_an_export_says_that_texts_were_erased_after_its_end(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    await record(database, cost(description="A text"), cost(description="Another"))
    await erased(database, 2)

    cut = await ledger("events", "export", tmp_path / "cut", "--until", "2", database=database_url)
    before = await ledger("events", "export", tmp_path / "before", "--until", "1", database=database_url)
    whole = await ledger("events", "export", tmp_path / "whole", database=database_url)

    assert "Note: free texts of these events were erased after position 2." in cut.err
    assert "Export the log up to position 3 to include the records of the erasures." in cut.err
    assert (before.err, whole.err) == ("", "")


async def test_a_wrong_export_is_reported_with_its_line_and_exit_code_1(exported: Path, tmp_path: Path) -> None:
    export = gzip.decompress((exported / "log.gz").read_bytes())
    files = {name: tmp_path / name for name in ("tampered", "cut")}
    files["tampered"].write_bytes(export.replace(b'"budget":"100"', b'"budget":"101"'))
    files["cut"].write_bytes((exported / "log.gz").read_bytes()[:-9])
    another = checkpoint_of(b"", signer=SIGNER.generate("ledger.example/log")).verifier.text

    tampered = await verify(exported, export=files["tampered"])
    cut = await verify(exported, "--json", export=files["cut"])
    wrong_key = await verify(exported, key=another)

    assert (tampered.code, cut.code, wrong_key.code) == (1, 1, 1)
    assert tampered.out.startswith("Not proved: the first ")
    assert "do not give the signed root" in tampered.out
    answer = json.loads(cut.out)
    assert (answer["proved"], answer["position"]) == (False, None)
    assert answer["detail"].startswith(f"line {answer['line']}: the file ends in the middle of its compressed data")
    assert "but the key given is" in wrong_key.out


async def test_the_three_options_are_required_together_and_must_be_readable(exported: Path, tmp_path: Path) -> None:
    alone = [
        await ledger("verify", option, exported / name, database=NOWHERE)
        for option, name in (("--export", "log.gz"), ("--checkpoint", "checkpoint"), ("--key", "key"))
    ]
    no_file = await verify(exported, export=tmp_path / "away")
    no_key = await verify(exported, key="nonsense")
    half_key = await verify(exported, key="ledger.example/log+00000000+AAAA")

    assert [result.code for result in (*alone, no_file, no_key, half_key)] == [2] * 6
    assert all("--export, --checkpoint and --key go together" in result.err for result in alone)
    assert "--key is neither a verifier key nor a file that can be read" in no_key.err
    assert "a verifier key: <name>+<key id>+<base64>" in half_key.err


async def test_verify_without_the_options_checks_the_tables(database_url: URL, database: Database) -> None:
    await record(database, campaign())
    await fold_page(database)

    result = await ledger("verify", database=database_url)

    assert (result.code, result.out) == (0, "Clean: the tables at position 1 of 1 match the log.\n")
