"""What the tests of the projections share with those of the log."""

from tests.log.conftest import shared_database_url

__all__ = ["shared_database_url"]
