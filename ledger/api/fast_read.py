"""The fast path of reading an item or a page of a read model (see `fast_path.py`).

aiohttp's router and middleware take nearly half the processor time of these reads. A request takes the fast path only
if it is cheap: it waits for no position, and reads the current state in the default order. With a replica, aiohttp
handles them all.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from yarl import URL

from ledger.api.collection_reads import Collection, Content, read_item, read_list
from ledger.api.collections import COLLECTIONS
from ledger.api.compression import GZIPPED, PLAIN_BYTES_MAX, VARY, accepts_gzip, compress
from ledger.api.fast_path import Connection, FastRequest, accept, find_caller, text, write, write_json
from ledger.api.middleware import CLIENT_CLOSED_REQUEST, error_response, is_access_logged
from ledger.api.min_position import HEADER
from ledger.api.plain_request import PlainGet, parse_plain_get
from ledger.api.services import Services
from ledger.domain.access import Caller
from ledger.logging_setup import REQUEST_CONTEXT

_COLLECTIONS = {collection.path: collection for collection in COLLECTIONS}
_PATH = re.compile(r"(/v1/[a-z-]+)(?:/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}))?")
_UNUSUAL_PARAMETER = re.compile(r"(^|&)(sort|min_position)=")
_MIN_POSITION = HEADER.lower().encode()


class FastRead:
    """Takes requests from all connections of a process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, data: bytes, connection: Connection) -> bool:
        """Take a request if it is complete and plain; see `FastAppend.take`."""
        if not data.startswith(b"GET /v1/") or self._services.replica is not None or is_access_logged():
            return False
        parsed = parse_plain_get(data)
        path = _PATH.fullmatch(parsed.path) if parsed is not None else None
        if parsed is None or path is None or path[1] not in _COLLECTIONS or _MIN_POSITION in parsed.headers:
            return False
        if parsed.query_string and (path[2] is not None or _UNUSUAL_PARAMETER.search(parsed.query_string)):
            return False
        caller = find_caller(self._services, parsed.headers, "read")
        if caller is None:
            return False
        route = path[1] if path[2] is None else f"{path[1]}/{{id}}"
        request = accept(self._services, connection, route, caller.name, parsed.headers)
        if request is None:
            return False
        read = partial(self._read, _COLLECTIONS[path[1]], path[2], parsed, caller)
        accept_encoding = text(parsed.headers.get(b"accept-encoding")) or ""
        task = asyncio.create_task(self._respond(request, parsed.path, accept_encoding, read))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection.cancel_when_lost(task)
        return True

    async def _read(self, collection: Collection, item_id: str | None, parsed: PlainGet, caller: Caller) -> Content:
        database = self._services.read_database
        if item_id is not None:
            return await read_item(database, caller, collection, UUID(item_id))
        url = URL.build(path=parsed.path, query_string=parsed.query_string, encoded=True)
        return await read_list(database, caller, collection, url)

    @staticmethod
    async def _compress(content: Content, accept_encoding: str) -> tuple[bytes, dict[str, str]]:
        if len(content.body) <= PLAIN_BYTES_MAX:
            return content.body, content.link
        if not accepts_gzip(accept_encoding):
            return content.body, content.link | VARY
        return await compress(content.body), content.link | GZIPPED

    async def _respond(
        self, request: FastRequest, path: str, accept_encoding: str, read: Callable[[], Awaitable[Content]]
    ) -> None:
        REQUEST_CONTEXT.set({"request_id": request.request_id, "key": request.key})
        status = 200
        try:
            content = await read()
            body, headers = await self._compress(content, accept_encoding)
        except asyncio.CancelledError:
            status = CLIENT_CLOSED_REQUEST
            raise
        except Exception as error:  # noqa: BLE001 (every error has a problem document)
            response = error_response(error, "GET", path)
            status = response.status
            write(request, response)
        else:
            write_json(request, status, body, content.position, headers)
        finally:
            self._services.telemetry.count_request("GET", request.route, status)
