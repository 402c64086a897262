"""`find_folder`: which folder of a home belongs to a database, also to one that was restored."""

from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.audit.home import DatabaseFolder, DatabaseIdentity, HomeError, find_folder, store_admin_key
from ledger.database import Database
from tests.audit.sealing import RecordingFiles, sealer_of
from tests.log.helpers import query

pytestmark = pytest.mark.direct

OTHER = b'{"system_identifier":"1","name":"other"}'
REVOKE = "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"


async def folder_of(database: Database, home: Path, *, is_embedded: bool = False) -> DatabaseFolder:
    async with database.connection() as connection:
        return await find_folder(connection, home, None, is_embedded=is_embedded)


def belongs_to_another(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "database").write_bytes(OTHER)


async def test_a_home_belongs_to_the_first_database_that_claims_it(database: Database, tmp_path: Path) -> None:
    first = await folder_of(database, tmp_path)
    first.claim()

    again = await folder_of(database, tmp_path)

    assert (first.path, first.owner) == (tmp_path, None)
    assert (again.path, again.owner, again.may_hold_another_log) == (tmp_path, first.database, False)


async def test_another_database_gets_the_same_folder_inside_each_time(database: Database, tmp_path: Path) -> None:
    belongs_to_another(tmp_path)

    first = await folder_of(database, tmp_path)
    first.claim()
    again = await folder_of(database, tmp_path)

    assert first.path.parent == tmp_path / "databases"
    assert (again.path, again.owner) == (first.path, first.database)
    assert (tmp_path / "database").read_bytes() == OTHER


async def test_a_moved_or_restored_database_finds_the_key_that_sealed_it(database: Database, tmp_path: Path) -> None:
    await (await sealer_of(database, RecordingFiles(tmp_path))).seal()
    belongs_to_another(tmp_path)

    found = await folder_of(database, tmp_path)

    assert (found.path, found.has_sealed) == (tmp_path, True)
    # A reset must not archive it: the database may be a copy, and the original may still be in use.
    assert found.may_hold_another_log


async def test_a_home_of_an_earlier_release_belongs_to_the_embedded_database_if_there_is_one(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "postgres" / "data").mkdir(parents=True)

    configured = await folder_of(database, tmp_path)
    embedded = await folder_of(database, tmp_path, is_embedded=True)

    assert configured.path.parent == tmp_path / "databases"
    assert embedded.path == tmp_path


async def test_a_checkpoint_of_an_earlier_release_may_be_of_another_log_unless_its_key_matches(
    database: Database, tmp_path: Path
) -> None:
    files = RecordingFiles(tmp_path)
    files.make_signer()
    files.write_checkpoint(b"of a log")
    before = await folder_of(database, tmp_path)
    files.checkpoint_file.unlink()
    await (await sealer_of(database, files)).seal()

    after = await folder_of(database, tmp_path)

    assert (before.path, before.may_hold_another_log) == (tmp_path, True)
    assert (after.path, after.may_hold_another_log) == (tmp_path, False)


async def test_without_the_systems_identifier_the_name_distinguishes_databases(
    database: Database, service_url: URL, tmp_path: Path
) -> None:
    await query(database, REVOKE)
    service = Database(service_url)

    found = await folder_of(service, tmp_path)

    assert found.database == DatabaseIdentity("unknown", str(service_url.database))
    await service.close()


async def test_a_damaged_owner_file_is_named_in_the_error(database: Database, tmp_path: Path) -> None:
    (tmp_path / "database").write_text("{")

    with pytest.raises(HomeError, match=r"database does not name a database.*Next"):
        await folder_of(database, tmp_path)


def test_an_admin_key_is_never_overwritten(tmp_path: Path) -> None:
    keys = ["first", "second", "third"]

    files = [store_admin_key(tmp_path, key) for key in keys]

    assert {file.name for file in files} == {"admin.key"}
    assert [(tmp_path / name).read_text() for name in ("admin.key", "admin.key.1", "admin.key.2")] == [
        "third\n",
        "first\n",
        "second\n",
    ]
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600
