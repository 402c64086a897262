"""What the sealer refuses to sign, how everybody is told, and what an operator can do about it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.audit.home import LogHome
from ledger.audit.note import Signer, sign
from ledger.audit.rollback import NothingToAccept, accept_rollback
from ledger.audit.sealer import RollbackFound
from ledger.log.appender import Appender
from tests.audit.sealing import (
    ORIGIN,
    RecordingHome,
    clone,
    copied,
    fill,
    get_json,
    lose_tail,
    sealer_of,
    served,
    unguarded,
)
from tests.audit.tlog_client import TileClient, open_checkpoint
from tests.events import cost
from tests.log.helpers import query, record, value

REFUSAL = "SELECT refusal FROM ledger.log_checkpoint"


class Log(NamedTuple):
    """A log of 300 events that is sealed, and its files."""

    engine: AsyncEngine
    home: RecordingHome

    async def seal(self) -> int:
        return await (await sealer_of(self.engine, self.home)).seal()

    async def refusal(self) -> str:
        """The sealer refuses, signs nothing, and says why, also to others."""
        signed = len(self.home.notes)
        with pytest.raises(RollbackFound) as raised:
            await self.seal()
        assert len(self.home.notes) == signed
        assert await value(self.engine, REFUSAL) == str(raised.value)
        return str(raised.value)

    async def accept(self) -> Any:
        async with Appender(self.engine) as appender:
            return await accept_rollback(self.engine, appender, self.home, by="ann", reason="the disk was lost")


@pytest.fixture
async def log(engine: AsyncEngine, tmp_path: Path) -> Log:
    log = Log(engine, RecordingHome(tmp_path / "home"))
    await fill(engine, 300)
    await log.seal()
    return log


async def test_a_log_that_lost_its_end_is_not_signed_and_everybody_is_told(log: Log) -> None:
    await lose_tail(log.engine, 290)

    async with served(log.engine) as client:
        before_the_sealer_looked = await get_json(client, "/readyz")
        refusal = await log.refusal()
        status, readiness = await get_json(client, "/readyz")
        async with client.get("/metrics") as answer:
            metrics = await answer.text()
        checkpoint = await TileClient(client).head()

    assert before_the_sealer_looked[0] == status == 503
    assert "the log has 290 events, but 300 were signed: the last 10 are missing" in refusal
    assert refusal in readiness["sealer"]
    assert "accept-rollback" in readiness["sealer"]
    assert "ledger_seal_refused 1.0" in metrics
    assert checkpoint.size == 300, "what was signed is still served"


@pytest.mark.parametrize("grown", [10, 20])
@pytest.mark.parametrize("kept", [290, 256, 10, 0])
async def test_it_is_refused_still_when_it_has_grown_past_what_was_signed(log: Log, kept: int, grown: int) -> None:
    await lose_tail(log.engine, kept)
    await record(log.engine, *(cost() for _ in range(300 - 10 - kept + grown)))

    assert "events have been replaced" in await log.refusal()


async def test_an_older_dump_that_was_continued_is_refused_and_the_right_database_goes_on(
    log: Log, database_url: URL
) -> None:
    refusals = {}
    await log.engine.dispose()
    async with copied(database_url) as dump:
        await fill(log.engine, 10)
        await log.seal()
        await log.engine.dispose()
        async with copied(database_url) as right:
            for continued in (0, 5, 10, 50):
                await clone(dump, database_url)
                await record(log.engine, *(cost() for _ in range(continued)))
                refusals[continued] = await log.refusal()
                assert await log.refusal() == refusals[continued]
                await log.engine.dispose()
            await clone(right, database_url)
    await fill(log.engine, 7)
    sealed = await log.seal()

    assert "the last 10 are missing" in refusals[0]
    assert "the last 5 are missing" in refusals[5]
    assert "events have been replaced" in refusals[10]
    assert refusals[50] == refusals[10]
    assert (sealed, await value(log.engine, REFUSAL)) == (7, None)


async def test_the_database_as_it_was_before_the_last_seal_is_sealed_again_by_itself(
    log: Log, database_url: URL
) -> None:
    await fill(log.engine, 10)
    await log.engine.dispose()
    async with copied(database_url) as dump:
        await log.seal()
        await log.engine.dispose()
        await clone(dump, database_url)

        sealed = await log.seal()

    assert sealed == 10
    assert log.home.notes[-1] == log.home.notes[-2]


def other_key(name: str = ORIGIN) -> Signer:
    return Signer.generate(name)


def damaged(note: bytes) -> bytes:
    return note.replace(b"\n300\n", b"\n200\n")


def signed_by_another(note: bytes) -> bytes:
    return sign(note.decode().partition("\n\n")[0] + "\n", other_key())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (damaged, "has been changed"),
        (signed_by_another, "signed by"),
        (lambda note: b"", "is not what this key has signed"),
        (lambda note: note[:-3], "is not what this key has signed"),
        (lambda note: b"\xff" + note, "not UTF-8"),
    ],
    ids=["damaged", "signed by another key", "empty", "cut", "not text"],
)
async def test_a_checkpoint_file_that_is_not_ours_is_refused_and_named(
    log: Log, change: Callable[[bytes], bytes], told: str
) -> None:
    log.home.checkpoint_file.write_bytes(change(log.home.notes[-1]))
    await fill(log.engine, 1)

    refusal = await log.refusal()

    assert told in refusal
    assert str(log.home.checkpoint_file) in refusal


async def test_the_checkpoint_of_another_log_with_the_same_key_is_refused(log: Log) -> None:
    signer = log.home.read_signer()
    assert signer is not None
    root = "0" * 43 + "="
    log.home.checkpoint_file.write_bytes(sign(f"another.example/log\n300\n{root}\n", signer))

    assert "is of the log another.example/log" in await log.refusal()

    log.home.checkpoint_file.write_bytes(sign(f"{ORIGIN}\n300\n{root}\n", signer))

    assert "another root than the one signed" in await log.refusal()


async def test_a_missing_checkpoint_is_no_reason_to_stop(log: Log) -> None:
    log.home.checkpoint_file.unlink()
    await fill(log.engine, 1)

    assert await log.seal() == 1


async def test_another_key_does_not_go_on_where_this_one_stopped(log: Log) -> None:
    log.home.key_file.write_text(other_key().secret_text())
    log.home.checkpoint_file.unlink()

    assert "was sealed with the key" in await log.refusal()


async def test_another_origin_does_not_go_on_under_a_new_name(log: Log) -> None:
    renamed = Log(log.engine, RecordingHome(log.home.checkpoint_file.parent, "renamed.example/log"))

    assert "was sealed with the key" in await renamed.refusal()


@pytest.mark.parametrize(
    "harm",
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
async def test_a_stored_tree_that_is_not_what_was_signed_is_refused(log: Log, harm: str) -> None:
    await query(log.engine, harm)
    await record(log.engine, cost())

    await log.refusal()


async def test_a_checkpoint_row_that_was_deleted_is_told_and_an_operator_can_begin_anew(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await query(log.engine, "DELETE FROM ledger.log_checkpoint")

    with pytest.raises(Exception, match="has been deleted"):
        await log.seal()
    async with served(log.engine) as client:
        status, readiness = await get_json(client, "/readyz")
        async with client.get("/metrics") as answer:
            assert "ledger_seal_refused 1.0" in await answer.text()
    await log.accept()
    sealed = await log.seal()

    assert status == 503
    assert "has been deleted" in readiness["sealer"]
    assert (sealed, log.home.origin) == (301, f"{ORIGIN}/2")


async def test_an_event_that_was_removed_before_it_was_sealed_is_refused(log: Log) -> None:
    await record(log.engine, cost(), cost())
    async with unguarded(log.engine) as connection:
        await connection.execute("DELETE FROM ledger.events WHERE position = 301")

    assert "1 events at the positions 301 to 302" in await log.refusal()


async def test_an_accepted_rollback_is_recorded_and_the_log_goes_by_another_name_and_key(log: Log) -> None:
    await lose_tail(log.engine, 290)
    refusal = await log.refusal()
    old = log.home.read_signer()
    assert old is not None

    decided = await log.accept()
    sealed = await log.seal()

    async with served(log.engine) as client:
        tiles = TileClient(client)
        head = await tiles.head()
        await tiles.walk(head)
        event = (await get_json(client, "/v1/events/291"))[1]
        async with client.get("/v1/log/key") as answer:
            vkey = await answer.text()
        ready, _ = await get_json(client, "/readyz")
    told = {"origin": ORIGIN, "size": 300, "by": "ann", "reason": "the disk was lost", "refusal": refusal}
    assert (event["type"], event["data"]) == ("ledger.rollback_accepted", told)
    assert (decided.by, decided.refusal) == ("ann", refusal)
    assert (sealed, head.size, head.origin, ready) == (291, 291, f"{ORIGIN}/2", 200)
    assert vkey.strip() != old.verifier.text
    archived = log.home.checkpoint_file.with_name("checkpoint.1").read_bytes()
    assert open_checkpoint(archived, old.verifier.text).size == 300


async def test_without_a_refusal_there_is_nothing_to_accept(log: Log) -> None:
    with pytest.raises(NothingToAccept, match="300 events are sealed"):
        await log.accept()

    assert await value(log.engine, "SELECT position FROM ledger.log_head") == 300


async def test_who_has_no_key_cannot_accept(log: Log, tmp_path: Path) -> None:
    await lose_tail(log.engine, 290)
    await log.refusal()

    with pytest.raises(NothingToAccept, match="no key"):
        await Log(log.engine, RecordingHome(tmp_path / "elsewhere")).accept()


async def lose_checkpoint(log: Log) -> None:
    log.home.checkpoint_file.unlink()


async def lose_archives(log: Log) -> None:
    for file in log.home.checkpoint_file.parent.glob("checkpoint.[0-9]*"):
        file.unlink()


async def lose_both(log: Log) -> None:
    await lose_checkpoint(log)
    await lose_archives(log)


@pytest.mark.parametrize("lose", [lose_checkpoint, lose_archives, lose_both])
async def test_no_name_is_used_twice_whatever_of_the_home_is_lost(
    log: Log, lose: Callable[[Log], Awaitable[None]]
) -> None:
    names = [log.home.origin]
    for kept in (290, 280, 270):
        await lose_tail(log.engine, kept)
        await log.refusal()
        if kept == 270:
            await lose(log)
            await log.refusal()
        await log.accept()
        await log.seal()
        names.append(await value(log.engine, "SELECT origin FROM ledger.log_checkpoint"))

    assert names == [ORIGIN, f"{ORIGIN}/2", f"{ORIGIN}/3", f"{ORIGIN}/4"]
    assert await log.seal() == 0


async def test_an_archive_is_never_overwritten(log: Log) -> None:
    archives = log.home.checkpoint_file.parent
    (archives / "checkpoint.2").write_bytes(b"older")

    log.home.give_up(ORIGIN, None)

    assert (archives / "checkpoint.2").read_bytes() == b"older"
    assert (archives / "checkpoint.3").read_bytes() == log.home.notes[-1]
    assert log.home.origin == f"{ORIGIN}/4"


async def test_an_acceptance_that_was_cut_short_is_repeated(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await lose_tail(log.engine, 290)
    await log.refusal()
    with monkeypatch.context() as patch, pytest.raises(Exception, match="division by zero"):
        patch.setattr("ledger.audit.store.BEGIN_ANEW", "SELECT 1 / 0")
        await log.accept()

    assert "was sealed with the key" in await log.refusal()
    await log.accept()
    await log.seal()

    assert await value(log.engine, "SELECT origin FROM ledger.log_checkpoint") == f"{ORIGIN}/3"


def test_a_home_where_nothing_was_signed_has_nothing_to_give_up(tmp_path: Path) -> None:
    home = LogHome(tmp_path / "home", None, ORIGIN)

    home.give_up(None, None)

    assert home.origin == ORIGIN
    assert not (tmp_path / "home").exists()
