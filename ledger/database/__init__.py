"""PostgreSQL: connection pool, transaction-mode poolers, TLS, roles, migrations."""

from ledger.database.connection import CONNECTION_ERRORS, Connection
from ledger.database.engine import STATEMENT_SECONDS_MAX, Database

__all__ = ["CONNECTION_ERRORS", "STATEMENT_SECONDS_MAX", "Connection", "Database"]
