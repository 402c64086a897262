"""Transaction-mode poolers (PgBouncer, Supabase on port 6543): detection, and use without sessions.

Behind such a pooler each transaction may run on another server connection. So nothing may depend on a session: no
prepared statement with a name that another client may use, no LISTEN, no lock or temporary table that outlives a
transaction, and SET LOCAL instead of SET.
"""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import URL

from ledger.database import Connection

POOLER_PORT = 6543
"""The port of Supabase's pooler in transaction mode; no other server uses it by default."""

QUERY_SECONDS_MAX = 3.0
ATTEMPTS = 3

SELECT_PID = "SELECT pg_backend_pid()"

WITHOUT_CACHE: dict[str, Any] = {"statement_cache_size": 0}
"""The argument of asyncpg. Without the statement cache, a statement with parameters takes one more round trip."""

ENGINE_ARGUMENTS: dict[str, Any] = WITHOUT_CACHE | {
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: f"ledger_{uuid.uuid4().hex}",
}
"""The arguments of SQLAlchemy's asyncpg dialect."""


def declared_by_url(url: URL) -> bool | None:
    """Whether a URL declares a transaction-mode pooler, by `?pgbouncer=true` or `false` or by its port; None if not."""
    option = url.query.get("pgbouncer")
    if option is not None:
        return option == "true"
    return True if url.port == POOLER_PORT else None


async def is_direct_connection(connection: Connection) -> bool:
    """Whether `pg_backend_pid()` equals the process id in the startup message. Behind a pooler it does not.

    The query uses no prepared statement, so the result is the number of rows.
    """
    status = await connection.execute(f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}")
    return status == "SELECT 1"


async def is_transaction_pooler(connect: Callable[[], Awaitable[Connection]]) -> bool:
    """Whether clients share server connections, transaction by transaction. Detected by connecting as two clients.

    Poolers in session mode, and proxies that forward whole sessions, do not share them.

    Args:
        connect: opens a connection without a statement cache.
    """
    first, second = await connect(), await connect()
    try:
        for _ in range(ATTEMPTS):
            before = await first.fetchval(SELECT_PID)
            async with second.transaction():
                held = await second.fetchval(SELECT_PID)
                if held == before:
                    return True
                try:
                    after = await first.fetchval(SELECT_PID, timeout=QUERY_SECONDS_MAX)
                except TimeoutError:
                    # The pool has a single server connection, which the other client uses.
                    return True
            if after != before:
                return True
        return False
    finally:
        for connection in (first, second):
            with suppress(Exception):
                await connection.close(timeout=QUERY_SECONDS_MAX)
