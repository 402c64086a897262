"""Two databases in one home: each ledger keeps its signing key, checkpoint, seal and admin key."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import URL

from tests.cli.helpers import PYTHON, REPOSITORY, environment, ledger, remove, run, started
from tests.events import cost
from tests.log.helpers import until

pytestmark = pytest.mark.direct


@pytest.fixture
def shared_home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    remove(home)


def keys_in(home: Path) -> dict[Path, str]:
    """Return every signing key and admin key below a home."""
    return {file: file.read_text() for name in ("log.key", "admin.key") for file in home.rglob(name)}


def new_admin_key(before: dict[Path, str], home: Path) -> str:
    known = before.values()
    (key,) = [text for file, text in keys_in(home).items() if file.name == "admin.key" and text not in known]
    return key.strip()


async def sealed_size(client: aiohttp.ClientSession) -> int:
    async with client.get("/v1/log/checkpoint") as answer:
        return int((await answer.text()).splitlines()[1]) if answer.status == 200 else -1


async def add_and_seal(home: Path, database: URL | None, admin_key: str | None) -> str:
    """Start the service, append an event, wait until it is sealed; return the admin key that was used."""
    before = keys_in(home)
    async with started(home.parent, "up", "--port", "0", "--home", home, database=database) as up:
        url = await up.url()
        key = admin_key or new_admin_key(before, home)
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}) as client:
            async with client.post("/v1/events", json=cost()) as answer:
                assert answer.status == 201, await answer.text()
                position = (await answer.json())["position"]

            async def is_sealed() -> bool:
                return await sealed_size(client) == position

            await until(is_sealed)
            async with client.get("/readyz") as answer:
                assert answer.status == 200, await answer.text()
        assert await up.stop() == 0
    assert "NOT SEALED" not in up.errors.read_text()
    return key


@pytest.mark.parametrize("first", ["embedded", "configured"])
async def test_each_ledger_of_a_home_keeps_its_keys_and_its_seal(
    shared_home: Path, empty_database_url: URL, first: str
) -> None:
    one, other = (None, empty_database_url) if first == "embedded" else (empty_database_url, None)
    home = shared_home
    settings: dict[str, Any] = {"LEDGER_HOME": str(home)}

    key_of_one = await add_and_seal(home, one, None)
    files_of_one = keys_in(home)
    key_of_other = await add_and_seal(home, other, None)
    files_of_both = keys_in(home)
    await add_and_seal(home, one, key_of_one)
    script = [PYTHON, REPOSITORY / "scripts" / "db_reset.py"]
    reset = await run(*script, env=environment(other, **settings), stdin=b"yes\n")
    await add_and_seal(home, one, key_of_one)
    await add_and_seal(home, other, None)
    files_at_the_end = keys_in(home)
    verified = await asyncio.gather(*(ledger("verify", database=url, **settings) for url in (one, other)))

    assert reset.code == 0, reset.err
    assert key_of_other != key_of_one
    assert len(files_of_both) == len(files_at_the_end) == 4
    assert files_of_one.items() <= files_of_both.items()
    assert files_of_one.items() <= files_at_the_end.items()
    assert [result.code for result in verified] == [0, 0], [result.out for result in verified]
