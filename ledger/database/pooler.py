"""A pooler in transaction mode (PgBouncer, Supabase's on port 6543): what it cannot do, and how it is noticed.

Each transaction may run on another server connection. So nothing may be kept in a session: no prepared statement by a
name that another client may use too, no LISTEN, no lock or temporary table beyond a transaction, no SET but SET LOCAL.
"""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

from ledger.database import Connection

if TYPE_CHECKING:
    pass

POOLER_PORT = 6543
"""Where Supabase's pooler listens in transaction mode; nobody else does by default."""

SECONDS_MAX = 3.0
TRIES = 3

SERVER_PROCESS = "SELECT pg_backend_pid()"

POOLED_ARGUMENTS: dict[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: f"ledger_{uuid.uuid4().hex}",
}
"""For SQLAlchemy's asyncpg dialect. Without a cache a statement with parameters costs a round trip more."""


def declared(url: URL) -> bool | None:
    """What the URL says of itself: `?pgbouncer=true` or `false`, or the pooler's port; None where nothing is said."""
    word = url.query.get("pgbouncer")
    if word is not None:
        return word == "true"
    return True if url.port == POOLER_PORT else None


async def is_direct(connection: Connection) -> bool:
    """Whether the process that serves a connection is the one that greeted it: behind a pooler it never is.

    Asked without a prepared statement, and answered by how many rows there are.
    """
    status = await connection.execute(f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}")
    return status == "SELECT 1"


async def pools_transactions(connect: Callable[[], Awaitable[Connection]]) -> bool:
    """Whether a server connection serves several clients by turns, which is found out by being two clients.

    Poolers in session mode, and proxies that pass a whole session on, do not.

    Args:
        connect: makes a connection that caches no statements.
    """
    first, second = await connect(), await connect()
    try:
        for _ in range(TRIES):
            before = await first.fetchval(SERVER_PROCESS)
            async with second.transaction():
                held = await second.fetchval(SERVER_PROCESS)
                if held == before:
                    return True
                try:
                    after = await first.fetchval(SERVER_PROCESS, timeout=SECONDS_MAX)
                except TimeoutError:
                    # The pool's only connection is taken.
                    return True
            if after != before:
                return True
        return False
    finally:
        for connection in (first, second):
            with suppress(Exception):
                await connection.close(timeout=SECONDS_MAX)
