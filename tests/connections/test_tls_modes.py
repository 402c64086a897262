"""`sslmode` and `sslrootcert` with real servers: one that accepts only TLS, and one without TLS."""

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from ledger.database import Database
from tests.servers.certificates import Authority
from tests.servers.kinds import HARD_PASSWORD
from tests.servers.postgresql import PostgreSQL

IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


async def is_encrypted(url: URL, **query: str) -> bool:
    database = Database(url.set(query=query))
    try:
        async with database.engine.connect() as connection:
            return bool(await connection.scalar(text(IS_ENCRYPTED)))
    finally:
        await database.close()


def root_certificate(url: URL) -> str:
    return str(url.query["sslrootcert"])


@pytest.mark.parametrize("mode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
async def test_every_mode_except_disable_connects_to_a_server_that_accepts_only_tls(tls_url: URL, mode: str) -> None:
    options = {"sslrootcert": root_certificate(tls_url)} if mode.startswith("verify") else {}

    assert await is_encrypted(tls_url, sslmode=mode, **options)
    assert tls_url.password == HARD_PASSWORD


async def test_the_default_mode_uses_tls_if_the_server_supports_it(tls_url: URL) -> None:
    assert await is_encrypted(tls_url)


async def test_disable_never_encrypts(tls_url: URL, plain_server: PostgreSQL) -> None:
    with pytest.raises(DBAPIError, match="no encryption"):
        await is_encrypted(tls_url, sslmode="disable")

    assert not await is_encrypted(plain_server.url, sslmode="disable")


@pytest.mark.parametrize("mode", ["allow", "prefer"])
async def test_allow_and_prefer_connect_to_a_server_without_tls(plain_server: PostgreSQL, mode: str) -> None:
    assert not await is_encrypted(plain_server.url, sslmode=mode)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_mode_that_requires_tls_never_connects_without_it(plain_server: PostgreSQL, mode: str) -> None:
    with pytest.raises(ConnectionError, match="SSL"):
        await is_encrypted(plain_server.url, sslmode=mode)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_another_authority_is_refused(tls_url: URL, tmp_path: Path, mode: str) -> None:
    other_authority = Authority(tmp_path, "other")

    # With a root certificate `require` verifies too, as in libpq.
    with pytest.raises(ssl.SSLCertVerificationError):
        await is_encrypted(tls_url, sslmode=mode, sslrootcert=str(other_authority.certificate))


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_without_a_root_certificate_only_the_authorities_of_the_system_are_trusted(
    tls_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(ssl.SSLCertVerificationError):
        await is_encrypted(tls_url, sslmode=mode)


async def test_the_root_certificate_of_the_user_is_trusted(
    tls_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_text(Path(root_certificate(tls_url)).read_text())

    assert await is_encrypted(tls_url, sslmode="verify-full")


async def test_only_verify_full_checks_the_host_name(tls_url: URL) -> None:
    localhost: dict[str, Any] = {"host": "localhost"}
    assert ("127.0.0.1", tls_url.port) in {info[4] for info in socket.getaddrinfo("localhost", tls_url.port)}

    assert await is_encrypted(tls_url.set(**localhost), sslmode="verify-ca", sslrootcert=root_certificate(tls_url))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
        await is_encrypted(tls_url.set(**localhost), sslmode="verify-full", sslrootcert=root_certificate(tls_url))


async def test_sslrootcert_system_implies_verify_full(tls_url: URL) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await is_encrypted(tls_url, sslmode="require", sslrootcert="system")
