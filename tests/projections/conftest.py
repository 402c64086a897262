"""Fixtures that are shared with the tests of the log."""

from tests.log.conftest import shared_database_url

__all__ = ["shared_database_url"]
