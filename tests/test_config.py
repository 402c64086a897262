"""Settings: every spelling of a database, `.env`, and errors in plain words that never show a password."""

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
    """Reads settings from a folder of the test's own and no environment but what is given."""
    return Reader(tmp_path)


class Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, dotenv: str = "", **environment: str) -> Settings:
        (self.folder / ".env").write_text(dotenv)
        # Something must be there: an empty environment stands for the process's own.
        return read_settings({"HOME": "/nowhere"} | environment, self.folder)

    def database(self, dotenv: str = "", **environment: str) -> URL:
        url = self(dotenv, **environment).database_url
        assert url is not None
        return url


def test_without_settings_there_are_defaults_and_the_embedded_database(settings: Reader) -> None:
    assert settings() == Settings(
        home=Path(".ledger"),
        host="127.0.0.1",
        port=8080,
        log_level="INFO",
        database_url=None,
        direct_database_url=None,
    )


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_spelling_of_a_database_url_is_the_same_database(settings: Reader, scheme: str) -> None:
    url = settings.database(DATABASE_URL=f"{scheme}://user:{ENCODED}@db.example.com:6543/books?sslmode=require")

    assert url == URL.create(
        "postgresql+asyncpg", "user", HARD_PASSWORD, "db.example.com", 6543, "books", {"sslmode": "require"}
    )


def test_a_database_may_be_given_in_parts_with_its_password_as_it_is(settings: Reader) -> None:
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


def test_a_url_goes_before_parts_and_empty_settings_count_as_none(settings: Reader) -> None:
    both = settings.database(DATABASE_URL="postgresql://u@one/d", DB_HOST="two")
    empty = settings(DATABASE_URL="", DB_HOST="", LEDGER_PORT="", LEDGER_HOME="")

    assert both.host == "one"
    assert (empty.database_url, empty.port, empty.home) == (None, 8080, Path(".ledger"))


@pytest.mark.direct
async def test_the_password_reaches_the_server_as_it_is(server_url: URL, settings: Reader, database_url: URL) -> None:
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


def test_a_dotenv_file_is_read_and_the_environment_goes_before_it(settings: Reader) -> None:
    dotenv = f"DB_HOST=file.example.com\nDB_PASSWORD='{HARD_PASSWORD}'\nLEDGER_PORT=9000\nLEDGER_HOME=/srv/ledger\n"

    read = settings(dotenv, LEDGER_PORT="9001", LEDGER_HOST="::1", LEDGER_LOG_LEVEL="debug")

    assert read.database_url is not None
    assert (read.database_url.host, read.database_url.password) == ("file.example.com", HARD_PASSWORD)
    assert (read.port, read.host, read.home, read.log_level) == (9001, "::1", Path("/srv/ledger"), "DEBUG")


def test_the_process_is_asked_where_nothing_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("DB_", "DATABASE_", "DIRECT_", "LEDGER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LEDGER_PORT=9000\nLEDGER_HOST=::1\n")
    monkeypatch.setenv("LEDGER_PORT", "9002")

    read = read_settings()

    assert (read.port, read.host) == (9002, "::1")


def test_a_direct_database_is_for_migrations_and_otherwise_the_same(settings: Reader) -> None:
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
        # A raw @ in a password makes a wrong host of what follows it.
        f"postgresql://u:p@{SECRET}@h:5432/d",
        f"postgresql://u:p@{SECRET}/w@h:5432/d",
        f"postgresql://u:p@{SECRET}#w@h:5432/d",
        f"postgresql://u:p@{SECRET}:w@h:5432/d",
        f"postgresql://u:p@{SECRET}?w@h:5432/d",
        f"postgresql://u:p@{SECRET}/w#r d%41:?@h:5432/d",
    ],
)
def test_a_url_that_cannot_be_right_is_refused_without_showing_it(settings: Reader, url: str) -> None:
    for name in ("DATABASE_URL", "DIRECT_DATABASE_URL"):
        with pytest.raises(ConfigError) as refusal:
            settings(**{name: url})

        assert name in str(refusal.value)
        assert SECRET not in str(refusal.value)
        assert refusal.value.__cause__ is None


@pytest.mark.parametrize("raw", ["p/w", "p#w", "p?w", "p:w", "p w", "100%"])
def test_a_raw_password_that_can_be_told_from_the_host_is_taken_as_it_is(settings: Reader, raw: str) -> None:
    url = settings.database(DATABASE_URL=f"postgresql://u:{raw}@h:5432/d")

    assert (url.password, url.host, url.database) == (raw, "h", "d")


@pytest.mark.parametrize("port", ["http", "-1", "65536", "80.0", "²", "1e3"])
@pytest.mark.parametrize("name", ["LEDGER_PORT", "DB_PORT"])
def test_a_port_that_is_none_is_refused_by_its_name(settings: Reader, name: str, port: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a port number"):
        settings(**{"DB_HOST": "h", name: port})


def test_the_most_connections_are_a_number_from_one_on(settings: Reader) -> None:
    assert settings(LEDGER_CONNECTIONS_MAX="30").connections_max == 30
    for wrong in ("0", "-1", "many", "1e3", "10000000"):
        with pytest.raises(ConfigError, match="LEDGER_CONNECTIONS_MAX"):
            settings(LEDGER_CONNECTIONS_MAX=wrong)


def test_a_log_level_that_is_none_is_refused_by_its_name(settings: Reader) -> None:
    with pytest.raises(ConfigError, match="LEDGER_LOG_LEVEL"):
        settings(LEDGER_LOG_LEVEL="loud")


@pytest.mark.parametrize(
    ("mode", "encrypts", "verifies", "checks_host"),
    [("require", True, False, False), ("verify-ca", True, True, False), ("verify-full", True, True, True)],
)
def test_a_mode_that_asks_for_tls_gets_it(mode: str, encrypts: bool, verifies: bool, checks_host: bool) -> None:
    url = parse_url("DATABASE_URL", f"postgresql://u:p@h/d?sslmode={mode}&channel_binding=require")

    left, arguments = connect_arguments(url)

    context = arguments.get("ssl")
    assert ((context is not None), context.verify_mode.name == "CERT_REQUIRED", context.check_hostname) == (
        encrypts,
        verifies,
        checks_host,
    )
    # libpq's words; asyncpg takes none of them.
    assert left.query == {}


@pytest.mark.parametrize(
    ("name", "beside"), [("DIRECT_DATABASE_URL", "DIRECT_DATABASE_URL"), ("REPLICA_DATABASE_URL", "REPLICA")]
)
def test_a_url_beside_the_database_without_one_is_refused(settings: Reader, name: str, beside: str) -> None:
    with pytest.raises(ConfigError, match=f"{beside}.* goes beside DATABASE_URL"):
        settings(**{name: "postgresql://u:p@h/d"})


def test_a_root_certificate_that_cannot_be_read_is_named(settings: Reader) -> None:
    url = settings.database(DATABASE_URL="postgresql://u@h/d?sslmode=verify-ca&sslrootcert=/nowhere/root.crt")

    with pytest.raises(ConfigError, match=r"sslrootcert names /nowhere/root\.crt.*No such file"):
        Database(url)


def test_a_word_for_the_pooler_that_is_neither_true_nor_false_is_refused(settings: Reader) -> None:
    with pytest.raises(ConfigError, match="pgbouncer in DATABASE_URL must be true or false"):
        settings(DATABASE_URL="postgresql://u@h/d?pgbouncer=yes")


def test_a_mode_that_does_not_exist_is_refused_and_never_means_no_encryption(settings: Reader) -> None:
    for wrong in ({"DATABASE_URL": "postgresql://u@h/d?sslmode=Require"}, {"DB_HOST": "h", "DB_SSLMODE": "requrie"}):
        with pytest.raises(ConfigError, match="sslmode"):
            settings(**wrong)
