"""The sealer refuses to sign a log that was rolled back or changed, and the service reports it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.audit.note import Signer, sign
from ledger.audit.sealer import OtherKeyError
from ledger.audit.signing_files import SigningFiles
from ledger.cli.doctor import Check, examine_databases
from ledger.config import Settings
from ledger.database import Database
from tests.audit.sealing import (
    ORIGIN,
    REFUSAL,
    RecordingFiles,
    SealedLog,
    clone,
    copied,
    delete_after,
    fill,
    get_json,
    sealed_log,
    sealer_of,
    served,
    without_triggers,
)
from tests.audit.tlog_client import TileClient
from tests.events import campaign, cost
from tests.log.helpers import query, record, value


@pytest.fixture
async def log(database: Database, tmp_path: Path) -> SealedLog:
    return await sealed_log(database, tmp_path / "home")


async def test_a_log_that_lost_its_end_is_not_signed_and_the_service_reports_it(log: SealedLog) -> None:
    await delete_after(log.database, 290)

    async with served(log.database) as client:
        before_the_refusal = await get_json(client, "/readyz")
        refusal = await log.refusal()
        status, readiness = await get_json(client, "/readyz")
        async with client.get("/metrics") as answer:
            metrics = await answer.text()
        checkpoint = await TileClient(client).head()

    assert before_the_refusal[0] == status == 503
    assert "the log has 290 events, but 300 were signed: the last 10 are missing" in refusal
    assert refusal in readiness["sealer"]
    assert "accept-rollback" in readiness["sealer"]
    assert "ledger_seal_refused 1.0" in metrics
    assert checkpoint.size == 300, "what was signed is still served"


async def test_the_doctor_remarks_that_the_key_which_sealed_the_log_here_is_gone(
    log: SealedLog, database_url: URL, tmp_path: Path
) -> None:
    (tmp_path / "home" / "log.key").unlink()

    checks = await examine_databases(Settings(home=tmp_path / "home", database_url=database_url))

    (sealer,) = [check for check in checks if check.name == "sealer"]
    assert sealer.verdict == "problem"
    assert f"{tmp_path / 'home' / 'log.key'} is gone" in sealer.says


@pytest.mark.parametrize("grown", [10, 20])
@pytest.mark.parametrize("last_position", [290, 256, 10, 0])
async def test_a_log_that_lost_its_end_is_refused_even_after_it_has_grown_again(
    log: SealedLog, last_position: int, grown: int
) -> None:
    await delete_after(log.database, last_position)
    await record(log.database, *(cost() for _ in range(300 - 10 - last_position + grown)))

    assert "events have been replaced" in await log.refusal()


async def test_an_older_dump_with_new_events_is_refused_and_the_right_database_is_sealed(
    log: SealedLog, database_url: URL
) -> None:
    refusals = {}
    await log.database.close()
    async with copied(database_url) as dump:
        await fill(log.database, 10)
        await log.seal()
        await log.database.close()
        async with copied(database_url) as right:
            for continued in (0, 5, 10, 50):
                await clone(dump, database_url)
                await record(log.database, *(cost() for _ in range(continued)))
                refusals[continued] = await log.refusal()
                assert await log.refusal() == refusals[continued]
                await log.database.close()
            await clone(right, database_url)
    await fill(log.database, 7)
    sealed = await log.seal()

    assert "the last 10 are missing" in refusals[0]
    assert "the last 5 are missing" in refusals[5]
    assert "events have been replaced" in refusals[10]
    assert refusals[50] == refusals[10]
    assert (sealed, await value(log.database, REFUSAL)) == (7, None)


async def test_a_database_from_before_the_last_seal_is_sealed_again_automatically(
    log: SealedLog, database_url: URL
) -> None:
    await fill(log.database, 10)
    await log.database.close()
    async with copied(database_url) as dump:
        await log.seal()
        await log.database.close()
        await clone(dump, database_url)

        sealed = await log.seal()

    assert sealed == 10
    assert log.files.notes[-1] == log.files.notes[-2]


def other_key(name: str = ORIGIN) -> Signer:
    return Signer.generate(name)


def damaged(note: bytes) -> bytes:
    return note.replace(b"\n300\n", b"\n200\n")


def signed_by_another(note: bytes) -> bytes:
    return sign(note.decode().partition("\n\n")[0] + "\n", other_key())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "has been changed"),
        (signed_by_another, "signed by"),
        (lambda note: b"", "is not what this key has signed"),
        (lambda note: note[:-3], "is not what this key has signed"),
        (lambda note: b"\xff" + note, "not UTF-8"),
    ],
    ids=["damaged", "signed by another key", "empty", "truncated", "not text"],
)
async def test_a_checkpoint_file_without_a_valid_signature_is_refused_and_named(
    log: SealedLog, change: Callable[[bytes], bytes], message: str
) -> None:
    log.files.checkpoint_file.write_bytes(change(log.files.notes[-1]))
    await fill(log.database, 1)

    refusal = await log.refusal()

    assert message in refusal
    assert str(log.files.checkpoint_file) in refusal


async def test_the_checkpoint_of_another_log_with_the_same_key_is_refused(log: SealedLog) -> None:
    signer = log.files.read_signer()
    assert signer is not None
    root = "0" * 43 + "="
    log.files.checkpoint_file.write_bytes(sign(f"another.example/log\n300\n{root}\n", signer))

    assert "is of the log another.example/log" in await log.refusal()

    log.files.checkpoint_file.write_bytes(sign(f"{ORIGIN}\n300\n{root}\n", signer))

    assert "another root than the one signed" in await log.refusal()


async def test_a_missing_checkpoint_file_does_not_stop_the_sealer(log: SealedLog) -> None:
    log.files.checkpoint_file.unlink()
    await fill(log.database, 1)

    assert await log.seal() == 1


async def test_another_key_or_origin_cannot_continue_the_log(log: SealedLog, tmp_path: Path) -> None:
    other = RecordingFiles(tmp_path / "elsewhere")
    other.make_signer()
    renamed = RecordingFiles(log.files.checkpoint_file.parent, "renamed.example/log")

    for files in (other, renamed):
        with pytest.raises(OtherKeyError, match="was sealed with the key"):
            await (await sealer_of(log.database, files)).seal()
        assert files.notes == []

    assert await value(log.database, REFUSAL) is None, "other processes are not concerned"
    await fill(log.database, 1)
    assert await log.seal() == 1


async def test_a_process_with_another_key_is_not_ready_and_the_others_are(log: SealedLog, tmp_path: Path) -> None:
    other = RecordingFiles(tmp_path / "elsewhere")
    other.make_signer()
    sealer = await sealer_of(log.database, other)

    async with served(log.database, sealer) as concerned, served(log.database) as client:
        async with asyncio.timeout(30):
            while sealer.problem is None:
                await asyncio.sleep(0.05)
        status, readiness = await get_json(concerned, "/readyz")
        status_of_others, _ = await get_json(client, "/readyz")

    assert (status, status_of_others) == (503, 200)
    assert "the log was sealed with the key" in readiness["sealer"]
    assert "Next: use the key that sealed the log" in readiness["sealer"]


async def test_doctor_reports_another_key_in_its_home(log: SealedLog, database_url: URL, tmp_path: Path) -> None:
    RecordingFiles(tmp_path / "elsewhere").make_signer()

    found = {}
    for home in ("elsewhere", "home", "empty"):
        settings = Settings(home=tmp_path / home, log_origin=ORIGIN, database_url=database_url)
        checks = await examine_databases(settings)
        found[home] = next(check for check in checks if check.name == "sealer")

    assert [check.verdict for check in found.values()] == ["problem", "ok", "ok"]
    assert "the log was sealed with the key" in found["elsewhere"].says


async def test_doctor_warns_of_events_if_nothing_was_ever_sealed(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, log_origin=ORIGIN, database_url=database_url)

    async def sealer_check() -> Check:
        return next(check for check in await examine_databases(settings) if check.name == "sealer")

    empty = await sealer_check()
    await record(database, campaign())
    without_key = await sealer_check()
    SigningFiles(tmp_path, None, ORIGIN).make_signer()
    with_key = await sealer_check()

    assert [check.verdict for check in (empty, without_key, with_key)] == ["ok", "warning", "warning"]
    assert f"`ledger up`, which creates {tmp_path / 'log.key'}" in without_key.says
    assert f"`ledger worker`, which seal with {tmp_path / 'log.key'}" in with_key.says


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM ledger.log_tiles WHERE level = 0 AND index = 1",
        "DELETE FROM ledger.log_tiles WHERE level = 1",
        "UPDATE ledger.log_tiles SET hashes = substr(hashes, 1, 32) WHERE level = 0 AND index = 1",
        "UPDATE ledger.log_tiles SET hashes = set_byte(hashes, 40, 255 - get_byte(hashes, 40)) WHERE index = 1",
        "UPDATE ledger.log_tiles SET hashes = set_byte(hashes, 0, 255 - get_byte(hashes, 0)) WHERE level = 1",
        "UPDATE ledger.log_checkpoint SET root = sha256('')",
        "UPDATE ledger.log_checkpoint SET size = 299",
        "UPDATE ledger.log_checkpoint SET size = 301",
        "UPDATE ledger.log_checkpoint SET verifier_key = 'another+00000000+AAAA'",
    ],
)
async def test_a_stored_tree_that_differs_from_what_was_signed_is_refused(log: SealedLog, damage: str) -> None:
    await query(log.database, damage)
    await record(log.database, cost())

    await log.refusal()


async def test_a_log_with_an_event_removed_before_sealing_is_refused(log: SealedLog) -> None:
    await record(log.database, cost(), cost())
    async with without_triggers(log.database) as connection:
        await connection.execute("DELETE FROM ledger.events WHERE position = 301")

    assert "positions 301 to 302 should hold 2 events, but hold 1" in await log.refusal()
