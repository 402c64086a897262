"""GET /v1/agent-jobs/{id}/tree: a job and the jobs below it, with their costs and budgets."""

from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.heavy_reads import turn
from ledger.api.min_position import MinPositionQuery, wait_for_read_models
from ledger.api.parameters import path_uuid, read_query
from ledger.api.routes import JSON, Route, always
from ledger.api.services import Services
from ledger.api.views import Money
from ledger.domain.errors import NotFound, ReadTooLarge
from ledger.domain.job import JobStatus
from projections.job_tree import read_tree

JOBS_MAX = 10_000
"""The most jobs of a response, which is in memory as a whole: about 4 MiB."""


class JobInTree(msgspec.Struct):
    """A job in a tree, without its texts."""

    id: UUID
    parent_job_id: UUID | None
    depth: int
    agent_type: str
    agent_name: str | None
    status: JobStatus
    cost: Money
    tree_cost: Money
    held: Money
    budget: Money | None


class JobTree(msgspec.Struct):
    """A job and the jobs below it, each after its parent, and those with the same parent by the time of recording."""

    items: list[JobInTree]


class JobTreeQuery(MinPositionQuery, forbid_unknown_fields=True):
    """The consistency of a tree."""


async def get_tree(request: web.Request, services: Services) -> web.StreamResponse:
    """Return a job and the jobs below it."""
    query = read_query(request, JobTreeQuery)
    job_id = path_uuid(request)
    await wait_for_read_models(request, services, query.min_position)
    async with turn(request), services.read_database.connection() as connection:
        allowed = request[CALLER].allowed_campaign_ids
        position, number, jobs = await read_tree(connection, job_id, allowed, JOBS_MAX + 1)
    if not number:
        raise NotFound(f"there is no agent job {job_id}")
    if number > JOBS_MAX:
        raise ReadTooLarge(
            f"there are more than {JOBS_MAX:,} jobs in the tree; read the tree of a job below, or page through "
            "GET /v1/agent-jobs with root_job_id or parent_job_id"
        )
    body = f'{{"items":{jobs}}}'.encode()
    return web.Response(body=body, content_type=JSON, headers={"Ledger-Position": str(position)})


ROUTES = [
    Route(
        "GET",
        "/v1/agent-jobs/{id}/tree",
        get_tree,
        "Read an agent job and the jobs below it.",
        {200: JobTree},
        JobTreeQuery,
        problems=(
            "not-found",
            "malformed",
            "read-too-large",
            "projection-behind",
            "overloaded",
            "database-unavailable",
        ),
        from_replica=True,
        is_heavy=always,
        description=f"At most {JOBS_MAX:,} jobs.",
    )
]
