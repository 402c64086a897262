"""The `Connection` alias that every signature uses, and the errors that mean "the database is away"."""

from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    # Only the type stubs make the class generic.
    Connection = asyncpg.Connection

CONNECTION_ERRORS = (
    OSError,
    asyncpg.InterfaceError,
    # Raised by a connection that was cut in the middle of a protocol exchange.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    # No connection slot, disk space or memory is left.
    asyncpg.InsufficientResourcesError,
    # The server cannot read or write its disk.
    asyncpg.PostgresSystemError,
)
"""Raised when the database cannot be reached, went away, was shut down, or its disk is full or failing."""
