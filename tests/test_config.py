"""Settings: all forms of a database URL, `.env`, and error messages that never contain a password."""

import os
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import URL, text

from ledger.config import ConfigError, Settings, parse_url, read_settings
from ledger.database import Database
from ledger.database.engine import connect_arguments
from tests.conftest import administer

HARD_PASSWORD = "p@ss/w#r d%41:?"
ENCODED = "p%40ss%2Fw%23r%20d%2541%3A%3F"


@pytest.fixture
def settings(tmp_path: Path) -> "Reader":
    """Reads settings from a separate folder, and only the environment variables that are passed."""
    return Reader(tmp_path)


class Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, dotenv: str = "", **environment: str) -> Settings:
        (self.folder / ".env").write_text(dotenv)
        # At least one variable: an empty environment would mean the environment of the process.
        return read_settings({"HOME": "/nowhere"} | environment, self.folder)

    def database(self, dotenv: str = "", **environment: str) -> URL:
        url = self(dotenv, **environment).database_url
        assert url is not None
        return url


def test_the_default_settings_use_the_embedded_database(settings: Reader) -> None:
    assert settings() == Settings(
        home=Path(".ledger"),
        host="127.0.0.1",
        port=8080,
        log_level="INFO",
        database_url=None,
        direct_database_url=None,
    )


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_all_schemes_of_a_database_url_name_the_same_database(settings: Reader, scheme: str) -> None:
    url = settings.database(DATABASE_URL=f"{scheme}://user:{ENCODED}@db.example.com:6543/books?sslmode=require")

    assert url == URL.create(
        "postgresql+asyncpg", "user", HARD_PASSWORD, "db.example.com", 6543, "books", {"sslmode": "require"}
    )


def test_a_database_can_be_given_in_parts_with_an_unencoded_password(settings: Reader) -> None:
    url = settings.database(
        DB_HOST="db.example.com",
        DB_PORT="6543",
        DB_NAME="books",
        DB_USER="user.ref",
        DB_PASSWORD=HARD_PASSWORD,
        DB_SSLMODE="verify-full",
    )

    assert (url.host, url.port, url.database, url.username) == ("db.example.com", 6543, "books", "user.ref")
    assert url.password == HARD_PASSWORD
    assert parse_url("DATABASE_URL", url.render_as_string(hide_password=False)) == url
    assert url.query == {"sslmode": "verify-full"}


def test_parts_have_the_defaults_of_postgresql(settings: Reader) -> None:
    assert settings.database(DB_HOST="h") == URL.create("postgresql+asyncpg", "postgres", None, "h", 5432, "postgres")


def test_a_url_takes_precedence_over_parts_and_empty_settings_are_ignored(settings: Reader) -> None:
    both = settings.database(DATABASE_URL="postgresql://u@one/d", DB_HOST="two")
    empty = settings(DATABASE_URL="", DB_HOST="", LEDGER_PORT="", LEDGER_HOME="")

    assert both.host == "one"
    assert (empty.database_url, empty.port, empty.home) == (None, 8080, Path(".ledger"))


@pytest.mark.direct
async def test_the_password_reaches_the_server_unchanged(server_url: URL, settings: Reader, database_url: URL) -> None:
    role = f"hard_{database_url.database}"
    await administer(server_url, f"CREATE ROLE {role} LOGIN PASSWORD '{HARD_PASSWORD.replace(':', chr(92) + ':')}'")
    parts = {
        "DB_HOST": str(database_url.host),
        "DB_PORT": str(database_url.port),
        "DB_NAME": str(database_url.database),
    }
    in_parts = settings.database(**parts, DB_USER=role, DB_PASSWORD=HARD_PASSWORD)
    in_one = settings.database(DATABASE_URL=in_parts.set(drivername="postgres").render_as_string(hide_password=False))

    users = []
    for url in (in_parts, in_one):
        database = Database(url)
        async with database.engine.connect() as connection:
            users.append(await connection.scalar(text("SELECT current_user")))
        await database.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            in_one.set(drivername="postgresql", password="p@ss").render_as_string(hide_password=False)
        )

    assert users == [role, role]
    await administer(server_url, f"DROP ROLE {role}")


def test_the_environment_takes_precedence_over_a_dotenv_file(settings: Reader) -> None:
    dotenv = f"DB_HOST=file.example.com\nDB_PASSWORD='{HARD_PASSWORD}'\nLEDGER_PORT=9000\nLEDGER_HOME=/srv/ledger\n"

    read = settings(dotenv, LEDGER_PORT="9001", LEDGER_HOST="::1", LEDGER_LOG_LEVEL="debug")

    assert read.database_url is not None
    assert (read.database_url.host, read.database_url.password) == ("file.example.com", HARD_PASSWORD)
    assert (read.port, read.host, read.home, read.log_level) == (9001, "::1", Path("/srv/ledger"), "DEBUG")


def test_the_default_sources_are_the_environment_and_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("DB_", "DATABASE_", "DIRECT_", "LEDGER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LEDGER_PORT=9000\nLEDGER_HOST=::1\n")
    monkeypatch.setenv("LEDGER_PORT", "9002")

    read = read_settings()

    assert (read.port, read.host) == (9002, "::1")


def test_the_direct_database_defaults_to_the_database(settings: Reader) -> None:
    pooled, direct = "postgresql://u:p@pooler:6543/d", "postgresql://u:p@direct:5432/d"

    both, one = settings(DATABASE_URL=pooled, DIRECT_DATABASE_URL=direct), settings(DATABASE_URL=pooled)

    assert both.direct_database_url == URL.create("postgresql+asyncpg", "u", "p", "direct", 5432, "d")
    assert both.database_url == one.database_url == one.direct_database_url
    assert one.database_url is not None
    assert one.database_url.host == "pooler"


SECRET = "s3cret"


@pytest.mark.parametrize(
    "url",
    [
        f"{SECRET}",
        f"mysql://u:{SECRET}@h/d",
        f"sqlite:///{SECRET}",
        f"https://u:{SECRET}@h/d",
        f"postgresql:/u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h:port/d",
        # After an unencoded @ in a password, the rest of the password would be read as the host.
        f"postgresql://u:p@{SECRET}@h:5432/d",
        f"postgresql://u:p@{SECRET}/w@h:5432/d",
        f"postgresql://u:p@{SECRET}#w@h:5432/d",
        f"postgresql://u:p@{SECRET}:w@h:5432/d",
        f"postgresql://u:p@{SECRET}?w@h:5432/d",
        f"postgresql://u:p@{SECRET}/w#r d%41:?@h:5432/d",
    ],
)
def test_an_invalid_url_is_refused_without_showing_it(settings: Reader, url: str) -> None:
    for name in ("DATABASE_URL", "DIRECT_DATABASE_URL"):
        with pytest.raises(ConfigError) as refusal:
            settings(**{name: url})

        assert name in str(refusal.value)
        assert SECRET not in str(refusal.value)
        assert refusal.value.__cause__ is None


@pytest.mark.parametrize("raw", ["p/w", "p#w", "p?w", "p:w", "p w", "100%"])
def test_an_unencoded_password_is_accepted_if_the_host_is_unambiguous(settings: Reader, raw: str) -> None:
    url = settings.database(DATABASE_URL=f"postgresql://u:{raw}@h:5432/d")

    assert (url.password, url.host, url.database) == (raw, "h", "d")


@pytest.mark.parametrize("port", ["http", "-1", "65536", "80.0", "²", "1e3"])
@pytest.mark.parametrize("name", ["LEDGER_PORT", "DB_PORT"])
def test_an_invalid_port_is_refused_with_the_name_of_the_setting(settings: Reader, name: str, port: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a port number"):
        settings(**{"DB_HOST": "h", name: port})


def test_the_limit_of_connections_is_a_positive_number(settings: Reader) -> None:
    assert settings(LEDGER_CONNECTIONS_MAX="30").connections_max == 30
    for wrong in ("0", "-1", "many", "1e3", "10000000"):
        with pytest.raises(ConfigError, match="LEDGER_CONNECTIONS_MAX"):
            settings(LEDGER_CONNECTIONS_MAX=wrong)


def test_the_time_of_a_re_verification_is_a_number_of_hours(settings: Reader) -> None:
    assert settings().reverify_hours == 24
    assert settings(LEDGER_REVERIFY_HOURS="0.5").reverify_hours == 0.5
    for wrong in ("0", "-1", "daily", "nan", "inf"):
        with pytest.raises(ConfigError, match="LEDGER_REVERIFY_HOURS"):
            settings(LEDGER_REVERIFY_HOURS=wrong)


def test_an_invalid_log_level_is_refused_with_the_name_of_the_setting(settings: Reader) -> None:
    with pytest.raises(ConfigError, match="LEDGER_LOG_LEVEL"):
        settings(LEDGER_LOG_LEVEL="loud")


@pytest.mark.parametrize(
    ("mode", "encrypts", "verifies", "checks_host"),
    [("require", True, False, False), ("verify-ca", True, True, False), ("verify-full", True, True, True)],
)
def test_a_mode_that_requires_tls_enables_it(mode: str, encrypts: bool, verifies: bool, checks_host: bool) -> None:
    url = parse_url("DATABASE_URL", f"postgresql://u:p@h/d?sslmode={mode}&channel_binding=require")

    plain_url, arguments = connect_arguments(url)

    context = arguments.get("ssl")
    assert ((context is not None), context.verify_mode.name == "CERT_REQUIRED", context.check_hostname) == (
        encrypts,
        verifies,
        checks_host,
    )
    # Options of libpq, which asyncpg does not know.
    assert plain_url.query == {}


@pytest.mark.parametrize(
    ("name", "named"), [("DIRECT_DATABASE_URL", "DIRECT_DATABASE_URL"), ("REPLICA_DATABASE_URL", "REPLICA")]
)
def test_a_direct_or_replica_url_without_a_database_url_is_refused(settings: Reader, name: str, named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}.* requires DATABASE_URL"):
        settings(**{name: "postgresql://u:p@h/d"})


def test_an_unreadable_root_certificate_is_named_in_the_error(settings: Reader) -> None:
    url = settings.database(DATABASE_URL="postgresql://u@h/d?sslmode=verify-ca&sslrootcert=/nowhere/root.crt")

    with pytest.raises(ConfigError, match=r"sslrootcert /nowhere/root\.crt cannot be used: No such file"):
        Database(url)


def test_an_invalid_value_of_the_option_pgbouncer_is_refused(settings: Reader) -> None:
    with pytest.raises(ConfigError, match="pgbouncer in DATABASE_URL must be true or false"):
        settings(DATABASE_URL="postgresql://u@h/d?pgbouncer=yes")


def test_an_unknown_sslmode_is_refused_instead_of_disabling_encryption(settings: Reader) -> None:
    for wrong in ({"DATABASE_URL": "postgresql://u@h/d?sslmode=Require"}, {"DB_HOST": "h", "DB_SSLMODE": "requrie"}):
        with pytest.raises(ConfigError, match="sslmode"):
            settings(**wrong)
