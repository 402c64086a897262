"""The URL of the embedded server without its password, which clients read from a password file."""

import os
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL


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
    _replace(passfile, f"{url.host}:*:*:{url.username}:{url.password}\n")
    stored = f"postgresql://{url.username}@{url.host}:{url.port}/{url.database}?passfile={quote(str(passfile))}"
    _replace(folder / "url", f"{stored}\n")
    return stored


def _replace(path: Path, text: str) -> None:
    """Replace a file atomically, mode 0600. It is written at every start, so it need not survive a power failure."""
    new = path.with_name(f"{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
