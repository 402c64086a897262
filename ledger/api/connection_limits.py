"""Limits of open connections: a total, a share for each API key, a quarter for those without a key."""

import asyncio
from collections import OrderedDict
from itertools import islice
from typing import Protocol

from ledger.domain.access import LOCAL
from ledger.domain.errors import Overloaded
from ledger.fair_share import FairShare

UNAUTHENTICATED_CONNECTIONS_MIN = 16
"""With a small total, more than a quarter of it may wait for their first request with a valid key."""

GRACE_SECONDS = 1.0
"""Younger connections are closed only if the total is reached: clients often reconnect all at once."""

FIRST_REQUEST_SECONDS_MAX = 10.0
"""Timeout from the opening of a connection to the end of the headers of its first request."""

IDLE_SECONDS_MIN = 5.0
"""An authenticated connection is closed to make room only after this time without a request."""

EXAMINED_MAX = 100
"""Authenticated connections examined for each new one, so that opening many at a time stays cheap."""


class LimitedConnection(Protocol):
    """The attributes and methods of a connection that the limits use."""

    @property
    def has_sent_request(self) -> bool:
        """Whether the headers of a request were received completely."""

    def idle_seconds(self) -> float | None:
        """Return the time since the last response, or since the opening; None while a request is in progress."""

    def abort(self) -> None:
        """Close the connection at once."""


class ConnectionLimits:
    """The open connections of a process, and which of them is closed to make room for another.

    Connections that have not sent a request with a valid key are closed first, the oldest before the others; then the
    one whose last request was the longest ago. Without keys every connection counts as authenticated.
    """

    def __init__(self, total: int, *, with_keys: bool) -> None:
        """Make the limits for at most `total` connections, of clients with or without API keys."""
        self._total = total
        self._with_keys = with_keys
        self._unauthenticated_max = max(UNAUTHENTICATED_CONNECTIONS_MIN, total // 4)
        self._share = FairShare(total)
        self._unauthenticated: dict[LimitedConnection, asyncio.TimerHandle] = {}
        self._authenticated: OrderedDict[LimitedConnection, str] = OrderedDict()

    def make_room(self) -> bool:
        """Close a connection if a limit is reached; return whether another one may be opened."""
        if len(self._unauthenticated) >= self._unauthenticated_max:
            self._close_unauthenticated(GRACE_SECONDS)
        if len(self._unauthenticated) + len(self._authenticated) >= self._total:
            return self._close_unauthenticated(0.0) or self._close_idle()
        return True

    def add(self, connection: LimitedConnection) -> None:
        """Add a connection that was opened."""
        if not self._with_keys:
            self._authenticated[connection] = LOCAL.name
            return
        timer = asyncio.get_running_loop().call_later(FIRST_REQUEST_SECONDS_MAX, self._close_silent, connection)
        self._unauthenticated[connection] = timer

    def remove(self, connection: LimitedConnection) -> None:
        """Remove a connection that was closed."""
        if (timer := self._unauthenticated.pop(connection, None)) is not None:
            timer.cancel()
        elif (key := self._authenticated.pop(connection, None)) is not None and self._with_keys:
            self._share.give_back(key)

    def authenticate(self, connection: LimitedConnection, key: str) -> None:
        """Count a connection for the key whose request it has sent; it may have sent requests with other keys before.

        Raises:
            Overloaded: the key has its share of the connections already.
        """
        if self._authenticated.get(connection, key) != key:
            self.remove(connection)
            self.add(connection)
        if (timer := self._unauthenticated.get(connection)) is not None:
            if not self._share.try_take(key):
                raise Overloaded(f"the key {key!r} has {self._share.held(key)} open connections; retry in 1 s")
            timer.cancel()
            del self._unauthenticated[connection]
            self._authenticated[connection] = key
        elif connection in self._authenticated:
            self._authenticated.move_to_end(connection)

    def _close_silent(self, connection: LimitedConnection) -> None:
        if not connection.has_sent_request:
            self._close(connection)

    def _close_unauthenticated(self, age_seconds_min: float) -> bool:
        """Close the oldest connection without a valid request if it has this age; return whether it was closed."""
        for connection, timer in self._unauthenticated.items():
            opened_at = timer.when() - FIRST_REQUEST_SECONDS_MAX
            if asyncio.get_running_loop().time() - opened_at >= age_seconds_min:
                self._close(connection)
                return True
            break
        return False

    def _close_idle(self) -> bool:
        """Close an authenticated connection that is idle; return whether there was one."""
        for connection in list(islice(self._authenticated, EXAMINED_MAX)):
            idle_seconds = connection.idle_seconds()
            if idle_seconds is None:
                # A request is in progress. Next time, other connections are examined.
                self._authenticated.move_to_end(connection)
            elif idle_seconds >= IDLE_SECONDS_MIN:
                self._close(connection)
                return True
        return False

    def _close(self, connection: LimitedConnection) -> None:
        self.remove(connection)
        connection.abort()
