"""A row that every ledger has was deleted: commands and the service say so in a sentence."""

import pytest
from sqlalchemy import URL

from ledger.cli.doctor import examine_databases
from ledger.config import Settings
from ledger.database import Database
from ledger.database.singleton import MissingRowError
from projections.verify import verify
from projections.worker import fold_page
from tests.conftest import Service
from tests.events import cost
from tests.log.helpers import query, record

ROWS = ["ledger.log_head", "ledger.projection_checkpoints"]


@pytest.fixture
async def damaged(request: pytest.FixtureRequest, database: Database) -> str:
    """Delete the row of a table; return the table."""
    table: str = request.param
    await record(database, cost())
    await fold_page(database)
    await query(database, f"DELETE FROM {table}")
    return table


@pytest.mark.parametrize("damaged", ROWS, indirect=True)
async def test_verify_names_the_table(database: Database, damaged: str) -> None:
    with pytest.raises(MissingRowError, match="is missing: it was deleted; restore the database") as raised:
        await verify(database, lambda _: None, None)

    assert damaged in str(raised.value)


@pytest.mark.parametrize("damaged", ROWS, indirect=True)
async def test_doctor_names_the_table(database_url: URL, database: Database, damaged: str) -> None:
    checks = await examine_databases(Settings(database_url=database_url))

    (problem,) = [check for check in checks if check.verdict == "problem"]
    assert problem.says.startswith("the only row of ")
    assert damaged in problem.says


@pytest.mark.parametrize("table", ROWS)
async def test_the_service_is_not_ready_and_names_the_table(service: Service, table: str) -> None:
    await query(service.database, f"DELETE FROM {table}")

    async with service.client.get("/readyz") as answer:
        readiness = await answer.json()

    assert answer.status == 503
    assert table in readiness["database"]
