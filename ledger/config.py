"""Settings from the environment and `.env`, read once.

`DATABASE_URL`, or `DB_HOST DB_PORT DB_NAME DB_USER DB_PASSWORD DB_SSLMODE`; `DIRECT_DATABASE_URL`;
`REPLICA_DATABASE_URL`; `LEDGER_HOME LEDGER_HOST LEDGER_PORT LEDGER_LOG_LEVEL LEDGER_LOG_FORMAT LEDGER_LOG_ORIGIN
LEDGER_LOG_KEY LEDGER_RATE_LIMIT LEDGER_CONNECTIONS_MAX LEDGER_REVERIFY_HOURS LEDGER_IMPORT_PRICES`. The environment
takes precedence over `.env`.
"""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import limits
import msgspec
from dotenv import dotenv_values
from limits import RateLimitItem
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ledger.domain.errors import LedgerError

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

SESSION_ATTRIBUTES = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")

OPTIONS = (
    *("host", "passfile", "sslmode", "sslrootcert", "connect_timeout", "options", "target_session_attrs"),
    *("channel_binding", "application_name", "pgbouncer"),
)
"""Options allowed in a database URL. `channel_binding` is accepted and ignored."""

CONNECT_SECONDS_MAX = 3_600

PLACEHOLDER = re.compile(
    r"[\[<{][a-z_ -]*(your|password|project|user|host|region|database)[a-z_ -]*[\]>}]|\byour[-_]password\b",
    re.IGNORECASE,
)
"""What providers write in place of a password or a name, such as `[YOUR-PASSWORD]`."""

RATE_LIMIT = limits.parse("1000000/minute")
"""Rate limit of each key in each process: far above what one agent needs, it stops runaway clients."""

CONNECTIONS_MAX = 4_000
"""The most client connections of a process."""


REVERIFY_HOURS = 24.0
"""The time in which the whole sealed log is hashed again."""


class ConfigError(LedgerError):
    """A setting is invalid; the message names it and the next step."""


class Settings(msgspec.Struct, frozen=True):
    """The settings of the service. If `database_url` is None, the embedded PostgreSQL is used.

    `direct_database_url` is used for migrations, LISTEN and the owner's statements. It differs from `database_url` if
    there is a pooler, or if the service has a separate database user. `replica_database_url` is a streaming replica
    for reads, if there is one.
    """

    home: Path = Path(".ledger")
    host: str = "127.0.0.1"
    port: int = 8080
    log_level: str = "INFO"
    log_format: Literal["text", "json"] = "text"
    log_origin: str = "ledger.local/log"
    log_key: Path | None = None
    rate_limit: RateLimitItem = RATE_LIMIT
    connections_max: int = CONNECTIONS_MAX
    reverify_hours: float = REVERIFY_HOURS
    import_prices: bool = True
    database_url: URL | None = None
    direct_database_url: URL | None = None
    replica_database_url: URL | None = None


def read_settings(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """Read the settings.

    Args:
        environment: replaces the environment of the process.
        folder: contains `.env`; the working directory when None.

    Raises:
        ConfigError: a setting is invalid.
    """
    file = dotenv_values((folder or Path.cwd()) / ".env")
    merged = {name: value for name, value in file.items() if value}
    merged.update({name: value for name, value in (environment or os.environ).items() if value})
    database_url = _database_url(merged)
    direct, replica = merged.get("DIRECT_DATABASE_URL"), merged.get("REPLICA_DATABASE_URL")
    if database_url is None and (direct or replica):
        raise ConfigError(f"{'DIRECT' if direct else 'REPLICA'}_DATABASE_URL requires DATABASE_URL, which is not set")
    return Settings(
        home=Path(merged.get("LEDGER_HOME", ".ledger")),
        host=merged.get("LEDGER_HOST", "127.0.0.1"),
        port=_port("LEDGER_PORT", merged.get("LEDGER_PORT", "8080")),
        log_level=_log_level(merged.get("LEDGER_LOG_LEVEL", "INFO")),
        log_format=_log_format(merged.get("LEDGER_LOG_FORMAT", "text")),
        log_origin=_log_origin(merged.get("LEDGER_LOG_ORIGIN", "ledger.local/log")),
        rate_limit=_rate_limit(merged.get("LEDGER_RATE_LIMIT")),
        connections_max=_connections_max(merged.get("LEDGER_CONNECTIONS_MAX")),
        reverify_hours=_reverify_hours(merged.get("LEDGER_REVERIFY_HOURS")),
        import_prices=_import_prices(merged.get("LEDGER_IMPORT_PRICES", "yes")),
        log_key=Path(merged["LEDGER_LOG_KEY"]) if "LEDGER_LOG_KEY" in merged else None,
        database_url=database_url,
        direct_database_url=parse_url("DIRECT_DATABASE_URL", direct) if direct else database_url,
        replica_database_url=parse_url("REPLICA_DATABASE_URL", replica) if replica else None,
    )


def _database_url(merged: Mapping[str, str]) -> URL | None:
    if url := merged.get("DATABASE_URL"):
        return parse_url("DATABASE_URL", url)
    if not (host := merged.get("DB_HOST")):
        return None
    for name in ("DB_HOST", "DB_USER", "DB_PASSWORD", "DB_NAME"):
        _require_filled_in(name, merged.get(name, ""))
    sslmode = merged.get("DB_SSLMODE")
    _require_sslmode("DB_SSLMODE", sslmode)
    return URL.create(
        "postgresql+asyncpg",
        username=merged.get("DB_USER", "postgres"),
        password=merged.get("DB_PASSWORD"),
        host=host,
        port=_port("DB_PORT", merged.get("DB_PORT", "5432")),
        database=merged.get("DB_NAME", "postgres"),
        query={"sslmode": sslmode} if sslmode else {},
    )


def parse_url(name: str, value: str) -> URL:
    """Parse a database URL that starts with `postgres://`, `postgresql://` or `postgresql+asyncpg://`.

    Args:
        name: the name of the setting, for messages; the value may contain a password and is never shown.
        value: the URL.

    Returns:
        the URL for SQLAlchemy's asyncpg dialect.

    Raises:
        ConfigError: the URL is invalid, or an unencoded `@ / # %` in the password has shifted its parts.
    """
    _require_filled_in(name, value)
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"{name} is not a database URL; the expected form is postgresql://user:password@host:5432/database, "
            "with the characters @ / # % : ? of a password percent-encoded (or give DB_HOST, DB_USER, DB_PASSWORD …)"
        ) from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+asyncpg"):
        raise ConfigError(f"{name} must start with postgresql://, not {url.drivername}://")
    if value.count("@") > 1 or "#" in (url.host or ""):
        raise ConfigError(
            f"{name} is ambiguous: its password seems to contain one of @ / # % unencoded, so the host would be "
            "wrong. Percent-encode it (@ is %40, / is %2F, # is %23, % is %25), or give DB_HOST, DB_PASSWORD … instead"
        )
    for option, setting in url.query.items():
        if option not in OPTIONS:
            raise ConfigError(f"{name} has the option {option!r}, which is not supported; remove it")
        if isinstance(setting, str):
            _check_option(name, option, setting)
        elif option != "host":
            raise ConfigError(f"{name} has the option {option!r} more than once; remove all but one")
    return url.set(drivername="postgresql+asyncpg")


def _check_option(name: str, option: str, value: str) -> None:
    """Refuse a value of an option of a database URL that could not take effect."""
    if option == "pgbouncer" and value not in ("true", "false"):
        raise ConfigError(f"pgbouncer in {name} must be true or false")
    if option == "sslmode":
        _require_sslmode(f"sslmode in {name}", value)
    if option == "target_session_attrs" and value not in SESSION_ATTRIBUTES:
        raise ConfigError(f"{option} in {name} must be one of {', '.join(SESSION_ATTRIBUTES)}, not {value!r}")
    if option == "connect_timeout" and not (_is_number(value) and 1 <= int(value) <= CONNECT_SECONDS_MAX):
        raise ConfigError(
            f"connect_timeout in {name} must be a number of seconds, 1 to {CONNECT_SECONDS_MAX}, not {value!r}"
        )
    # PostgreSQL ignores the case of a setting, and reads "-" as "_".
    if option == "options" and "synchronous_commit" in value.lower().replace("-", "_"):
        raise ConfigError(f"options in {name} must not change synchronous_commit: acknowledged events could be lost")


def _require_filled_in(name: str, value: str) -> None:
    if PLACEHOLDER.search(unquote(value)):
        raise ConfigError(
            f"{name} still contains a placeholder, such as [YOUR-PASSWORD]; replace it, brackets included, with the "
            "real value"
        )


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit()


def _require_sslmode(name: str, mode: str | None) -> None:
    if mode is not None and mode not in SSL_MODES:
        raise ConfigError(f"{name} (sslmode) must be one of {', '.join(SSL_MODES)}, not {mode!r}")


def _log_format(value: str) -> Literal["text", "json"]:
    if value not in ("text", "json"):
        raise ConfigError(f"LEDGER_LOG_FORMAT must be text or json, not {value!r}")
    return "json" if value == "json" else "text"


def _rate_limit(value: str | None) -> RateLimitItem:
    try:
        return limits.parse(value) if value else RATE_LIMIT
    except ValueError:
        raise ConfigError(
            f"LEDGER_RATE_LIMIT must be a rate such as 6000/minute or 100/second, not {value!r}"
        ) from None


def _connections_max(value: str | None) -> int:
    if not value:
        return CONNECTIONS_MAX
    if not _is_number(value) or not 1 <= int(value) <= 1_000_000:
        raise ConfigError(f"LEDGER_CONNECTIONS_MAX must be a number, 1 to 1000000, not {value!r}")
    return int(value)


def _reverify_hours(value: str | None) -> float:
    try:
        hours = float(value) if value else REVERIFY_HOURS
    except ValueError:
        hours = 0.0
    if not 0.1 <= hours <= 8760:
        raise ConfigError(f"LEDGER_REVERIFY_HOURS must be a number of hours, 0.1 to 8760, not {value!r}")
    return hours


def _import_prices(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ConfigError(f"LEDGER_IMPORT_PRICES must be yes or no, not {value!r}")
    return value == "yes"


def _log_origin(value: str) -> str:
    # It is also the name of the signing key, in a format that separates its fields by "+" and spaces.
    if not value.isprintable() or any(character.isspace() or character == "+" for character in value):
        raise ConfigError(f"LEDGER_LOG_ORIGIN must be a name such as ledger.example.org/log, not {value!r}")
    return value


def _log_level(value: str) -> str:
    if value.upper() not in logging.getLevelNamesMapping():
        raise ConfigError(f"LEDGER_LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not {value!r}")
    return value.upper()


def _port(name: str, value: str) -> int:
    if not _is_number(value) or not 0 <= int(value) <= 65_535:
        raise ConfigError(f"{name} must be a port number, 0 to 65535, not {value!r}")
    return int(value)
