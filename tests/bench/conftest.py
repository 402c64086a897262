"""A service with what the workload of the benchmarks refers to."""

import pytest

from ledger.bench import prepared_data
from tests.conftest import Service


@pytest.fixture
async def prepared(service: Service) -> Service:
    """A service with the campaigns and jobs that the workload refers to."""
    await prepared_data.add_campaigns_and_jobs(service.database)
    return service
