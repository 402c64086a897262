"""The type alias `Connection`, and the errors that mean that the database is unavailable."""

from typing import TYPE_CHECKING

import asyncpg

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
