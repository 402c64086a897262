"""The migration fills the journals as the worker would have, up to the checkpoint."""

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections.worker import fold_page
from tests.events import cost, follow
from tests.log.erasures import erased
from tests.log.helpers import query, record, request
from tests.migrations.helpers import REPOSITORY, REVISIONS, run_alembic
from tests.projections.helpers import append_requests, sample_history
from tests.projections.replaying import fold_everything, verified
from tests.projections.test_journals import journals

pytestmark = pytest.mark.direct

(MIGRATION,) = (REPOSITORY / "alembic" / "versions").glob("*_journals_and_views.py")
# The release before the journals has no prices.
PRICE_TYPES = ("cost.priced", "price.published", "price.withdrawn")

BEFORE = REVISIONS[REVISIONS.index(MIGRATION.name[:4]) - 1]


async def test_the_journals_are_filled_from_the_log(database: Database, database_url: URL) -> None:
    with_usage = cost("1", usage={"input_tokens": 5, "output_tokens": 2})
    spent = cost("0.000000000000000001", tokens_used=3)
    adjusted = follow(spent, "cost.adjusted", {"amount": "1", "tokens_used": -1, "reason": "A text"})
    again = follow(spent, "cost.adjusted", {"amount": "-0.5", "reason": "Another text"})
    await append_requests(database, [*sample_history(without=PRICE_TYPES), request(with_usage, spent, adjusted, again)])
    head = len(await query(database, "SELECT FROM ledger.events"))
    await erased(database, head)
    await fold_everything(database)
    filled_by_worker = await journals(database)
    # An event after the checkpoint is left to the worker.
    await record(database, cost("7"))

    await run_alembic(database_url, "downgrade", BEFORE)
    await run_alembic(database_url, "upgrade", "head")

    assert await journals(database) == filled_by_worker
    assert all(filled_by_worker)
    await fold_page(database)
    assert len((await journals(database))[0]) == len(filled_by_worker[0]) + 1
    assert (await verified(database))[0].is_clean
