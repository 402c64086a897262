"""The actor of events that commands write: `cli:` and the user; keys of earlier releases."""

import getpass
from pathlib import Path

from sqlalchemy import URL

from ledger import keys
from ledger.database import Database
from ledger.domain.access import Role
from tests.cli.helpers import ledger
from tests.events import cost
from tests.log.helpers import query, record, value

ACTORS = "SELECT type, actor FROM ledger.events WHERE position > $1 ORDER BY position"


async def test_what_commands_write_carries_the_user(database_url: URL, database: Database, tmp_path: Path) -> None:
    actor = f"cli:{getpass.getuser()}"
    await record(database, cost(description="lunch"))
    async with database.connection() as connection:
        await keys.create_key(connection, "old", Role.AGENT)
    file = tmp_path / "event.json"
    file.write_text('{"type": "cost.recorded", "data": {"resource_type": "other", "cost": "1"}}')

    for arguments in (
        ("migrate",),
        ("migrate",),
        ("keys", "create", "crew", "--role", "agent"),
        ("keys", "revoke", "crew"),
        ("events", "append", str(file)),
        ("events", "erase", "1", "--reason", "Asked to"),
        ("seed",),
    ):
        result = await ledger(*arguments, database=database_url)
        assert result.code == 0, result.err

    written = await query(database, ACTORS, 1)
    assert [row[0] for row in written[:5]] == [
        "ledger.key_created",
        "ledger.key_created",
        "ledger.key_revoked",
        "cost.recorded",
        "ledger.payload_erased",
    ]
    assert len(written) > 20
    assert {row[1] for row in written} == {actor}
    assert await value(database, "SELECT data ->> 'name' FROM ledger.events WHERE position = 2") == "old"
