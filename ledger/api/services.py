"""What the handlers work with."""

from typing import NamedTuple

from aiohttp import web

from ledger.api.live_feed import Feed
from ledger.api.rate_limits import Rates
from ledger.api.replica import Replica
from ledger.api.request_bodies import Intake
from ledger.api.telemetry import Telemetry
from ledger.database import Database
from ledger.keys import KeyRing
from ledger.log.appender import Appender
from projections.queries import MIN_POSITION_SECONDS_MAX


class Services(NamedTuple):
    """The parts of a running service. Without `keys` everybody may do everything, as often as he likes.

    `reads` is where a handler reads that may answer from the replica, `wait_seconds_max` how long it may wait there
    for a position. See `replica.py`.
    """

    database: Database
    reads: Database
    appender: Appender
    feed: Feed
    intake: Intake
    telemetry: Telemetry
    keys: KeyRing | None = None
    rates: Rates | None = None
    replica: Replica | None = None
    wait_seconds_max: float = MIN_POSITION_SECONDS_MAX


SERVICES = web.AppKey("services", Services)
