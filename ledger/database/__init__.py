"""PostgreSQL: connection pool, transaction-mode poolers, TLS, roles, migrations."""

from ledger.database.connection import CONNECTION_ERRORS, Connection, log_level
from ledger.database.engine import STATEMENT_SECONDS_MAX, Database

__all__ = ["CONNECTION_ERRORS", "STATEMENT_SECONDS_MAX", "Connection", "Database", "log_level"]
