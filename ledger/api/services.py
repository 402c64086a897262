"""What the handlers work with."""

from typing import NamedTuple

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.api.feed import Feed
from ledger.log.appender import Appender


class Services(NamedTuple):
    """The parts of a running service."""

    engine: AsyncEngine
    appender: Appender
    feed: Feed


SERVICES = web.AppKey("services", Services)
