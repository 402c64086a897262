"""Which services are connected to the database, by the application names of their sessions."""

from ledger.database import Database

WORKERS = ("ledger up", "ledger worker")
"""The application names of processes that update the read models; they are the commands that start them."""

APIS = ("ledger up", "ledger serve")
"""The application names of processes that serve the API."""

CONNECTED = """
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name = ANY($1::text[]) ORDER BY application_name
"""


async def connected_services(database: Database) -> list[str] | None:
    """Return which of the commands `ledger up`, `serve` and `worker` are connected to the database.

    Returns:
        their names; None if that cannot be known, since a transaction-mode pooler keeps sessions of clients that left.
    """
    async with database.connection() as connection:
        names = await connection.fetch(CONNECTED, sorted({*WORKERS, *APIS}))
    return None if database.is_pooled else [row["application_name"] for row in names]
