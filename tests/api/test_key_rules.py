"""API keys: names, expiry times, revocation by id, and own changes that take effect at once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from ledger import key_ring
from ledger.database import Database
from ledger.domain.access import Role
from ledger.domain.errors import NotFound, Unauthenticated
from ledger.key_ring import KeyRing
from ledger.keys import create_key, find_key, list_keys, revoke_key
from tests.api.helpers import slug
from tests.api.json_schema import Schemas
from tests.api.test_keys import key_header, key_id, served, status_of
from tests.cli.helpers import ledger

CREATE_AS_EARLIER = """
INSERT INTO ledger.api_keys (id, name, role, secret_sha256, created_at, expires_at)
VALUES ('earlier00001', 'last instant', 'viewer', '', now(), 'infinity'),
    ('earlier00002', 'first instant', 'viewer', '', now(), '-infinity'),
    ('earlier00003', 'ＡＤＭＩＮ', 'viewer', '', now(), NULL), ('earlier00004', 'ledger', 'viewer', '', now(), NULL)
"""


async def create(client: aiohttp.ClientSession, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Create a key over HTTP; return the status and the answer."""
    async with client.post("/v1/keys", json={"name": "new", "role": "viewer"} | fields) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_process_accepts_its_new_key_and_refuses_its_revoked_key_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await key_header(database, "boss", "admin")
    for name in ("REFRESH_SECONDS", "UNKNOWN_KEY_REFRESH_SECONDS"):
        monkeypatch.setattr(key_ring, name, 1e9)

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        # The first request loads the keys, which are then never loaded again.
        assert await status_of(client, "GET", "/v1/campaigns") == 200
        _, created = await create(client)
        header = {"Authorization": f"Bearer {created['key']}"}
        used = await status_of(client, "GET", "/v1/campaigns", headers=header)
        assert await status_of(client, "DELETE", f"/v1/keys/{created['id']}") == 200
        after = await status_of(client, "GET", "/v1/campaigns", headers=header)

    assert (used, after) == (200, 401)


async def test_keys_that_were_read_before_a_change_of_the_process_do_not_undo_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(database)
    async with database.connection() as connection:
        old, old_text = await create_key(connection, "old", Role.VIEWER)
    read_last_used = ring._update_last_used
    created: list[str] = []

    async def change_keys(connection: Any) -> None:
        await read_last_used(connection)
        if not created:
            new, new_text = await create_key(connection, "new", Role.VIEWER)
            created.append(new_text)
            ring.add(new, new_text)
            ring.remove((await revoke_key(connection, old.id)).id)

    monkeypatch.setattr(ring, "_update_last_used", change_keys)

    with pytest.raises(Unauthenticated):
        await ring.authenticate(old_text)
    caller = ring.find_cached(created[0])

    assert caller is not None
    assert caller.name == "new"


@pytest.mark.parametrize(
    "expires_at",
    [
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "2020-01-01T00:00:00Z",
        "2100-01-01T00:00:00",
        "tomorrow",
        1e300,
    ],
)
async def test_an_expiry_in_the_past_or_outside_the_calendar_is_malformed(
    database: Database, expires_at: str | float
) -> None:
    admin = await key_header(database, "boss", "admin")

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        status, problem = await create(client, expires_at=expires_at)
        listed = await status_of(client, "GET", "/v1/keys")

    assert (status, slug(problem), listed) == (400, "malformed", 200)


async def test_keys_of_earlier_releases_are_still_listed_and_revoked(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")
    async with database.connection() as connection:
        await connection.execute(CREATE_AS_EARLIER)

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        listed, document = [await (await client.get(path)).json() for path in ("/v1/keys", "/openapi.json")]
        revoked = [await status_of(client, "DELETE", f"/v1/keys/earlier0000{number}") for number in (1, 2, 3, 4)]

    items = {key["id"]: key for key in listed["items"]}
    answers = document["paths"]["/v1/keys"]["get"]["responses"]["200"]["content"]
    assert Schemas(document).errors(answers["application/json"]["schema"], listed) == []
    assert items["earlier00001"]["expires_at"] is None
    assert items["earlier00002"]["expires_at"] == items["earlier00002"]["created_at"]
    assert revoked == [200] * 4


@pytest.mark.parametrize(
    "name",
    [
        "ledger",
        "local",
        " Ledger ",
        "LOCAL",
        "ｌｏｃａｌ",
        "cli:root",
        "CLI:root",
        "ｃｌｉ：root",
        "   ",
        "a\nb",
        "\u200b",
    ],
)
async def test_a_reserved_or_unprintable_name_is_malformed(database: Database, name: str) -> None:
    admin = await key_header(database, "boss", "admin")

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        status, problem = await create(client, name=name)

    assert (status, slug(problem)) == (400, "malformed")


async def test_a_name_is_stripped_and_taken_in_every_width_and_case(database: Database) -> None:
    admin = await key_header(database, "Straße admin", "admin")
    look_alikes = ["Straße admin", " Straße admin\u00a0", "STRASSE ADMIN", "Straße ａdmin"]

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        taken = [(await create(client, name=name))[0] for name in look_alikes]
        status, created = await create(client, name="  the agent ")
        # The name of a revoked key stays taken.
        assert await status_of(client, "DELETE", f"/v1/keys/{created['id']}") == 200
        again, _ = await create(client, name="The Agent")

    assert taken == [409] * len(look_alikes)
    assert (status, created["name"], again) == (201, "the agent", 409)


async def test_a_key_is_revoked_by_its_id_and_no_key_that_is_named_like_the_id(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")
    victim = key_id(await key_header(database, "victim", "viewer"))
    await key_header(database, victim, "viewer")

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        by_name = await status_of(client, "DELETE", "/v1/keys/victim")
        by_id = await status_of(client, "DELETE", f"/v1/keys/{victim}")
    async with database.connection() as connection:
        revoked = [key.name for key in await list_keys(connection) if key.revoked_at is not None]
        found = [await find_key(connection, text) for text in ("victim", victim)]
        with pytest.raises(NotFound):
            await find_key(connection, "nobody")

    assert (by_name, by_id) == (404, 200)
    assert revoked == ["victim"]
    # The command line accepts names too; an id takes precedence.
    assert found == [victim, victim]


async def test_the_command_line_refuses_a_reserved_name_as_wrong_usage() -> None:
    refused = await ledger("keys", "create", "Local", "--role", "viewer")

    assert refused.code == 2
    assert "'Local' is reserved" in refused.err


async def test_an_expiry_in_the_future_is_stored_in_utc(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        _, created = await create(client, expires_at=at.astimezone().isoformat())

    assert created["expires_at"] == at.isoformat().replace("+00:00", ".000000Z")


async def test_a_member_of_a_new_key_that_is_named_twice_is_malformed(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")
    body = b'{"name": "new", "role": "viewer", "r\\u006fle": "admin"}'

    async with (
        served(database) as url,
        aiohttp.ClientSession(url, headers=admin | {"Content-Type": "application/json"}) as client,
        client.post("/v1/keys", data=body) as answer,
    ):
        problem = await answer.json(content_type=None)

    assert (answer.status, slug(problem)) == (400, "malformed")
    assert "$.role" in problem["detail"]
    async with database.connection() as connection:
        assert [key.name for key in await list_keys(connection)] == ["boss"]


async def test_the_refusal_of_a_huge_key_is_short(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")

    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        for fields in ({"role": "x" * 1_000_000}, {"x" * 1_000_000: 1}):
            status, problem = await create(client, **fields)
            assert (status, slug(problem)) == (400, "malformed")
            assert len(problem["detail"]) < 2_000
