"""The URL of the embedded server without its password, which clients read from a password file."""

from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL

from ledger.durable_files import replace_file


def store_url(home: Path, url: URL) -> str:
    """Write the password file of the embedded server, and its URL without the password.

    Args:
        home: the home of the server; HOME/postgres/passfile and HOME/postgres/url are written, with mode 0600.
        url: of the server, with its password.

    Returns:
        the URL without the password; psql, asyncpg, SQLAlchemy and the settings accept it.
    """
    folder = home.resolve() / "postgres"
    passfile = folder / "passfile"
    # The format of ~/.pgpass. The port may change at the next start.
    replace_file(passfile, f"{url.host}:*:*:{url.username}:{url.password}\n".encode())
    stored = f"postgresql://{url.username}@{url.host}:{url.port}/{url.database}?passfile={quote(str(passfile))}"
    replace_file(folder / "url", f"{stored}\n".encode())
    return stored
