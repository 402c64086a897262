"""End long responses when their API key is revoked or expires."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from ledger.api.auth import NEEDS, authenticate
from ledger.api.services import SERVICES
from ledger.domain.errors import Forbidden, Unauthenticated

logger = logging.getLogger(__name__)

RECHECK_SECONDS = 1.5
"""Interval of authenticating an open response again: with the key ring's delay, a revoked key ends it within 5 s."""


@asynccontextmanager
async def while_authorized(request: web.Request) -> AsyncIterator[None]:
    """Cancel the context when the key of the request is no longer valid.

    Raises:
        Unauthenticated: the context was cancelled.
    """
    limit = asyncio.timeout(None)
    try:
        async with limit:
            watcher = asyncio.create_task(_expire_when_revoked(request, limit))
            try:
                yield
            finally:
                watcher.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        raise Unauthenticated("the key was revoked or has expired") from None


async def _expire_when_revoked(request: web.Request, limit: asyncio.Timeout) -> None:
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        try:
            await authenticate(request, request.app[SERVICES], request[NEEDS])
        except (Unauthenticated, Forbidden):
            limit.reschedule(asyncio.get_running_loop().time())
            return
        except Exception as error:  # noqa: BLE001 (an outage does not end a response)
            logger.debug("the key of an open response could not be checked: %s", type(error).__name__)
