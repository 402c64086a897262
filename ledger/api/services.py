"""The parts of a running service that request handlers use, and which database they read from."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from ledger.api.event_decoding import EventDecoding
from ledger.api.heavy_reads import HeavyReads
from ledger.api.live_feed import LiveFeed
from ledger.api.rate_limits import RateLimits
from ledger.api.replica import Replica
from ledger.api.request_bodies import RequestBodies
from ledger.api.telemetry import Telemetry
from ledger.audit.sealer import Sealer
from ledger.database import Database
from ledger.key_ring import KeyRing
from ledger.log.appender import Appender
from ledger.log.idempotency import IdempotencyKeys
from ledger.log.price_cache import PriceCache
from projections.positions import MIN_POSITION_SECONDS_MAX, PositionWaiters


class Services(NamedTuple):
    """The parts of a running service. Without `keys`, authentication and rate limiting are disabled.

    `database` is the primary. Handlers of routes that may be served by a replica read from `read_database`, and wait
    with `read_models` for at most `wait_seconds_max` until it reflects a minimum position; see `routes.py`.
    """

    database: Database
    read_database: Database
    read_models: PositionWaiters
    appender: Appender
    feed: LiveFeed
    request_bodies: RequestBodies
    event_decoding: EventDecoding
    idempotency_keys: IdempotencyKeys
    heavy_reads: HeavyReads
    telemetry: Telemetry
    prices: PriceCache
    keys: KeyRing | None = None
    rate_limits: RateLimits | None = None
    replica: Replica | None = None
    sealer: Sealer | None = None
    wait_seconds_max: float = MIN_POSITION_SECONDS_MAX

    @property
    def reads_from_replica(self) -> bool:
        """Whether the replica serves this request."""
        return self.read_database is not self.database


SERVICES = web.AppKey("services", Services)

Handler = Callable[[web.Request, Services], Awaitable[web.StreamResponse]]
