"""An appender on the test's own database."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.log.appender import Appender


@pytest.fixture
async def appender(engine: AsyncEngine) -> AsyncIterator[Appender]:
    async with Appender(engine) as appender:
        yield appender
