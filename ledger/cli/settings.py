"""Settings of a command: the environment and `.env`, overridden by --home, --host and --port."""

from pathlib import Path
from typing import Any

import msgspec

from ledger.audit.home import DatabaseFolder
from ledger.audit.signing_files import SigningFiles
from ledger.cli.output import exit_on_error
from ledger.config import Settings, read_settings
from ledger.logging_setup import configure as configure_logging

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


def settings_for(home: Path | None = None, host: str | None = None, port: int | None = None) -> Settings:
    """Read the settings, or exit with code 2 if one is invalid.

    Args:
        home: --home; None if not given, as for the others.
        host: --host.
        port: --port.

    Returns:
        the settings; logging is configured by them.
    """
    with exit_on_error():
        return read_settings_for(home, host, port)


def read_settings_for(home: Path | None = None, host: str | None = None, port: int | None = None) -> Settings:
    """Read the settings.

    Args:
        home: --home; None if not given, as for the others.
        host: --host.
        port: --port.

    Returns:
        the settings; logging is configured by them.

    Raises:
        ConfigError: a setting is invalid.
    """
    settings = read_settings()
    options: dict[str, Any] = {"home": home, "host": host, "port": port}
    given = {name: value for name, value in options.items() if value is not None}
    settings = msgspec.structs.replace(settings, **given)
    configure_logging(settings.log_level, settings.log_format)
    return settings


def signing_files(settings: Settings, folder: DatabaseFolder) -> SigningFiles:
    """Return the signing key and local checkpoint of the sealed log of one database."""
    return SigningFiles(folder.path, settings.log_key, settings.log_origin)
