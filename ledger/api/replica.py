"""The streaming replica: whether it is available, checked at most once a second.

Only successful responses from a replica are used. A replica lags a little and may be down, so any error may be due to
that, and the primary serves the request instead; see `routes.py`. `Ledger-Position` is read by the same statement as
the data, so it is right for both servers.
"""

import asyncio
import logging
import time

from ledger.database import Database
from projections.positions import read_model_waiters, replica_log_waiters

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
"""The replica is checked when a request is to be served from it, at most once in this time."""

CHECK_SECONDS_MAX = 2.0
"""Timeout of a check."""

OUTAGE_SECONDS = 5.0
"""After a failure, the replica is not used and not checked for this time."""

WAIT_SECONDS_MAX = 1.0
"""The longest wait for the replica to reach a minimum position; then the primary serves the request."""


class Replica:
    """A streaming replica and its availability."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.read_models = read_model_waiters(database, is_primary=False)
        self.log = replica_log_waiters(database)
        self._is_available = True
        self._next_check_at = 0.0

    async def is_available(self) -> bool:
        """Check the replica if a check is due; return whether the last check or request succeeded."""
        if time.monotonic() >= self._next_check_at:
            # Set before the check, so that concurrent requests use the last result instead of waiting for this one.
            self._next_check_at = time.monotonic() + CHECK_SECONDS + CHECK_SECONDS_MAX
            try:
                async with asyncio.timeout(CHECK_SECONDS_MAX), self.database.connection() as connection:
                    await connection.execute("SELECT")
                self.record_result(None)
            except Exception as error:  # noqa: BLE001 (whatever the error is, the primary serves the request)
                self.record_result(error)
        return self._is_available

    def record_result(self, error: Exception | None) -> None:
        """Record a success (None) or a failure; log the start and the end of an outage, not every request."""
        if error is not None and self._is_available:
            logger.warning("the replica does not respond (%s); reading from the primary", type(error).__name__)
        elif error is None and not self._is_available:
            logger.warning("the replica responds again")
        self._is_available = error is None
        self._next_check_at = time.monotonic() + (CHECK_SECONDS if error is None else OUTAGE_SECONDS)
