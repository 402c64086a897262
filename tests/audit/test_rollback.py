"""Accepting a rollback: recorded as an event, checkpoint archived, log sealed under an unused origin."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ledger.audit.rollback import NothingToAcceptError
from ledger.audit.signing_files import SigningFiles
from ledger.database import Database
from tests.audit.sealing import (
    ORIGIN,
    RecordingFiles,
    SealedLog,
    delete_after,
    get_json,
    sealed_log,
    served,
)
from tests.audit.tlog_client import TileClient, open_checkpoint
from tests.log.helpers import query, value


@pytest.fixture
async def log(database: Database, tmp_path: Path) -> SealedLog:
    return await sealed_log(database, tmp_path / "home")


async def test_a_deleted_checkpoint_row_is_reported_and_an_operator_can_start_a_new_tree(
    log: SealedLog, caplog: pytest.LogCaptureFixture
) -> None:
    await query(log.database, "DELETE FROM ledger.log_checkpoint")

    with pytest.raises(Exception, match="has been deleted"):
        await log.seal()
    async with served(log.database) as client:
        status, readiness = await get_json(client, "/readyz")
        async with client.get("/metrics") as answer:
            assert "ledger_seal_refused 1.0" in await answer.text()
    await log.accept()
    sealed = await log.seal()

    assert status == 503
    assert "has been deleted" in readiness["sealer"]
    assert (sealed, log.files.origin) == (301, f"{ORIGIN}/2")


async def test_an_accepted_rollback_is_recorded_and_the_log_gets_another_origin_and_key(log: SealedLog) -> None:
    await delete_after(log.database, 290)
    refusal = await log.refusal()
    old = log.files.read_signer()
    assert old is not None

    decided = await log.accept()
    sealed = await log.seal()

    async with served(log.database) as client:
        tiles = TileClient(client)
        head = await tiles.head()
        await tiles.walk(head)
        event = (await get_json(client, "/v1/events/291"))[1]
        async with client.get("/v1/log/key") as answer:
            vkey = await answer.text()
        ready, _ = await get_json(client, "/readyz")
    expected = {"origin": ORIGIN, "size": 300, "by": "ann", "reason": "the disk was lost", "refusal": refusal}
    assert (event["type"], event["data"]) == ("ledger.rollback_accepted", expected)
    assert (decided.by, decided.refusal) == ("ann", refusal)
    assert (sealed, head.size, head.origin, ready) == (291, 291, f"{ORIGIN}/2", 200)
    assert vkey.strip() != old.verifier.text
    archived = log.files.checkpoint_file.with_name("checkpoint.1").read_bytes()
    assert open_checkpoint(archived, old.verifier.text).size == 300


async def test_the_loss_of_the_key_can_be_accepted(log: SealedLog) -> None:
    log.files.key_file.unlink()
    log.files.make_signer()

    decided = await log.accept()
    await log.seal()

    assert "was sealed with the key" in decided.refusal
    assert await value(log.database, "SELECT origin FROM ledger.log_checkpoint") == f"{ORIGIN}/2"


async def test_without_a_refusal_there_is_nothing_to_accept(log: SealedLog) -> None:
    with pytest.raises(NothingToAcceptError, match="300 events are sealed"):
        await log.accept()

    assert await value(log.database, "SELECT position FROM ledger.log_head") == 300


async def test_a_rollback_cannot_be_accepted_without_the_key(log: SealedLog, tmp_path: Path) -> None:
    await delete_after(log.database, 290)
    await log.refusal()

    with pytest.raises(NothingToAcceptError, match="no key"):
        await SealedLog(log.database, RecordingFiles(tmp_path / "elsewhere")).accept()


async def lose_checkpoint(log: SealedLog) -> None:
    log.files.checkpoint_file.unlink()


async def lose_archives(log: SealedLog) -> None:
    for file in log.files.checkpoint_file.parent.glob("checkpoint.[0-9]*"):
        file.unlink()


async def lose_both(log: SealedLog) -> None:
    await lose_checkpoint(log)
    await lose_archives(log)


@pytest.mark.parametrize("lose", [lose_checkpoint, lose_archives, lose_both])
async def test_no_origin_is_used_twice_whichever_signing_files_are_lost(
    log: SealedLog, lose: Callable[[SealedLog], Awaitable[None]]
) -> None:
    origins = [log.files.origin]
    for last_position in (290, 280, 270):
        await delete_after(log.database, last_position)
        await log.refusal()
        if last_position == 270:
            await lose(log)
            await log.refusal()
        await log.accept()
        await log.seal()
        origins.append(await value(log.database, "SELECT origin FROM ledger.log_checkpoint"))

    assert origins == [ORIGIN, f"{ORIGIN}/2", f"{ORIGIN}/3", f"{ORIGIN}/4"]
    assert await log.seal() == 0


async def test_an_archive_is_never_overwritten(log: SealedLog) -> None:
    archives = log.files.checkpoint_file.parent
    (archives / "checkpoint.2").write_bytes(b"older")

    log.files.archive_checkpoint(ORIGIN, None)

    assert (archives / "checkpoint.2").read_bytes() == b"older"
    assert (archives / "checkpoint.3").read_bytes() == log.files.notes[-1]
    assert log.files.origin == f"{ORIGIN}/4"


async def test_an_interrupted_acceptance_can_be_repeated(log: SealedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    await delete_after(log.database, 290)
    await log.refusal()
    with monkeypatch.context() as patch, pytest.raises(Exception, match="division by zero"):
        patch.setattr("ledger.audit.tree_store.RESET_SEALED_TREE", "SELECT 1 / 0")
        await log.accept()

    assert "was sealed with the key" in await log.refusal()
    await log.accept()
    await log.seal()

    assert await value(log.database, "SELECT origin FROM ledger.log_checkpoint") == f"{ORIGIN}/3"


def test_signing_files_without_a_checkpoint_have_nothing_to_archive(tmp_path: Path) -> None:
    files = SigningFiles(tmp_path / "home", None, ORIGIN)

    files.archive_checkpoint(None, None)

    assert files.origin == ORIGIN
    assert not (tmp_path / "home").exists()
