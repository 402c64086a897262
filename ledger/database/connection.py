"""The type alias `Connection`, the errors of an unavailable database, and the level to log them at."""

import logging
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    # The class is generic only in the type stubs.
    Connection = asyncpg.Connection

CONNECTION_ERRORS = (
    OSError,
    asyncpg.InterfaceError,
    # Raised if the connection is lost in the middle of a protocol exchange.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    # No connection slot, disk space or memory left.
    asyncpg.InsufficientResourcesError,
    # The server cannot read or write its disk.
    asyncpg.PostgresSystemError,
)
"""Raised if the database cannot be reached, is lost or shut down, or its disk is full or failing."""

CONFLICT_ERRORS = (asyncpg.LockNotAvailableError, asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""Raised if another transaction is in the way. The own one was rolled back, and may succeed if it is repeated."""


def is_outage(error: BaseException | None) -> bool:
    """Whether an error means that the database is unavailable. The pool has then logged the outage, once."""
    # The pool wraps errors of the driver; a statement that was cancelled says nothing about the server.
    return isinstance(error, (*CONNECTION_ERRORS, DBAPIError)) and not isinstance(error, asyncpg.QueryCanceledError)


def outage_reason(error: BaseException) -> str:
    """Return why the database is unavailable, on one line, for logs and for `/readyz`."""
    original = error.__cause__ or error
    name = type(original).__name__
    if isinstance(original, asyncpg.InternalClientError | asyncpg.InterfaceError):
        # The driver's message names the state of its protocol machine.
        return f"the connection was lost while it was in use ({name})"
    first_line = str(original).partition("\n")[0].strip()
    return f"{first_line} ({name})" if first_line else name


def log_level(error: BaseException, otherwise: int = logging.WARNING) -> int:
    """Return the level to log a failure at: DEBUG if it is part of an outage, which is logged already."""
    return logging.DEBUG if is_outage(error) else otherwise
