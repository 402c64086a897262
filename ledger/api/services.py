"""What the handlers work with."""

from typing import NamedTuple

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.api.feed import Feed
from ledger.api.intake import Intake
from ledger.api.rates import Rates
from ledger.keys import KeyRing
from ledger.log.appender import Appender


class Services(NamedTuple):
    """The parts of a running service. Without `keys` everybody may do everything, as often as he likes."""

    engine: AsyncEngine
    appender: Appender
    feed: Feed
    intake: Intake
    keys: KeyRing | None = None
    rates: Rates | None = None


SERVICES = web.AppKey("services", Services)
