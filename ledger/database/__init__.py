"""PostgreSQL: connection pool, transaction-mode poolers, TLS, roles, migrations."""

from ledger.database.connection import CONFLICT_ERRORS, CONNECTION_ERRORS, Connection, log_level, outage_reason
from ledger.database.engine import STATEMENT_SECONDS_MAX, Database

__all__ = [
    "CONFLICT_ERRORS",
    "CONNECTION_ERRORS",
    "STATEMENT_SECONDS_MAX",
    "Connection",
    "Database",
    "log_level",
    "outage_reason",
]
