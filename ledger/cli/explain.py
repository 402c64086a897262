"""Explanations of failed database connections and statements: the likely cause and the next step."""

import re
import socket
import ssl

import asyncpg
from sqlalchemy.exc import SQLAlchemyError


def explain(error: BaseException) -> str:
    """Return what an error of the database or of a file means and what to do, with the original message."""
    cause = error.__cause__ or getattr(error, "orig", None)
    original = cause if isinstance(error, SQLAlchemyError) and isinstance(cause, BaseException) else error
    if isinstance(original.__cause__, Exception):
        # Not a CancelledError: that is only how a timeout ends what takes too long.
        original = original.__cause__
    if isinstance(original, OSError) and original.filename is not None:
        return f"{original.filename} cannot be used: {original.strerror}; correct it, or name another file or folder"
    message = _first_line(original)
    if isinstance(original, asyncpg.ObjectNotInPrerequisiteStateError):
        # The refusal of a migration, which names the next step itself.
        return message
    for pattern, meaning in _MEANINGS_BY_MESSAGE:
        if re.search(pattern, str(original), re.IGNORECASE):
            return f"{meaning} ({message})"
    for kinds, meaning in _MEANINGS_BY_TYPE:
        if isinstance(original, kinds):
            return f"{meaning} ({message})"
    return f"the database failed: {message}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


_REFUSED = (
    "the database refuses the user or the password; check both in DATABASE_URL, and percent-encode the characters "
    "@ / # % : ? of the password (or give DB_USER and DB_PASSWORD as they are)"
)

_NO_DATABASE = "there is no such database on the server; create it, or correct the name"

# Hosted databases and poolers use one error code for many causes: only the message distinguishes them.
_MEANINGS_BY_MESSAGE = (
    # PgBouncer reports a wrong password with the code of a protocol violation.
    (r"^SASL authentication failed|^password authentication failed|^no such user", _REFUSED),
    (
        r"no pg_hba\.conf entry .*no encryption|SSL (connection is )?required|connection is insecure",
        "the database refuses connections without TLS; add ?sslmode=require to DATABASE_URL (verify-full is safer)",
    ),
    (r'^database ".*" does not exist', _NO_DATABASE),
    (
        r"no pg_hba\.conf entry",
        "the server's pg_hba.conf does not allow this user to connect from this host to this database; add a rule",
    ),
    (
        r"permission denied for schema public",
        "the user that migrates must own the database, or have CREATE on it and on its schema public",
    ),
    (
        r"rejected SSL upgrade",
        "the server does not speak TLS, but sslmode requires it; correct host and port, or set sslmode=disable if the "
        "network is trusted",
    ),
    (
        r"tenant or user not found|tenant/user .*not found|no more connections allowed",
        "the pooler does not know this project or user; on Supabase the user is called postgres.PROJECT, and a "
        "project paused for lack of use has to be restored in its dashboard first",
    ),
    (
        r"endpoint .*(disabled|suspended)|project .*(paused|suspended)|compute .*(quota|limit)",
        "the database project is paused; resume it in the provider's dashboard, then start again",
    ),
    (
        r"(server login (has been )?fail|server_login_retry|connect failed|cannot connect to server)",
        "the pooler answers, but cannot reach the database behind it or log in there; check that the database is "
        "running and not paused",
    ),
    (
        r"hostname mismatch|doesn't match",
        "the server's certificate is for another host; correct the host, or set sslmode=verify-ca to skip the check of "
        "the host name",
    ),
)

_MEANINGS_BY_TYPE: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((asyncpg.InvalidPasswordError,), _REFUSED),
    (
        (asyncpg.InvalidAuthorizationSpecificationError,),
        "the database does not accept this user; check the user, and whether the server requires TLS "
        "(?sslmode=require)",
    ),
    ((asyncpg.InvalidCatalogNameError,), _NO_DATABASE),
    (
        (asyncpg.TargetServerAttributeNotMatched,),
        "no server of the database URL is what its option target_session_attrs asks for; change the option or the host",
    ),
    (
        (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError),
        "the database is not migrated; run `ledger migrate`",
    ),
    (
        (asyncpg.DuplicateTableError, asyncpg.DuplicateSchemaError, asyncpg.DuplicateFunctionError),
        "the database has something of this name already, made by another program or by hand; nothing was changed. Use "
        "an empty database, or rename what is there",
    ),
    (
        (asyncpg.InsufficientPrivilegeError,),
        "the database user lacks a privilege: the service's user must be a member of ledger_service (`ledger doctor`), "
        "and migrate, replay and reset need the owner in DIRECT_DATABASE_URL",
    ),
    (
        (asyncpg.ReadOnlySQLTransactionError,),
        "this database is read-only: it is a replica, or configured as read-only; set DATABASE_URL to the primary, and "
        "REPLICA_DATABASE_URL to the replica",
    ),
    ((asyncpg.TooManyConnectionsError,), "the database takes no more connections; close some or raise the limit"),
    (
        (asyncpg.DiskFullError,),
        "the database's disk is full; free or add space. The service then recovers, but a PostgreSQL that has stopped "
        "must be started again",
    ),
    ((asyncpg.CannotConnectNowError,), "the database is starting or stopping; wait a moment and try again"),
    (
        (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError),
        "the database seems to be behind a transaction-mode pooler; add ?pgbouncer=true to DATABASE_URL",
    ),
    (
        (socket.gaierror,),
        "the database's host is not known; check the host name, and the password for an unencoded @ or /; the host of "
        "a paused project is not known either",
    ),
    (
        (ConnectionRefusedError,),
        "nothing answers at the database's host and port; check that it is running and that the port is right",
    ),
    (
        (ssl.SSLCertVerificationError,),
        "the server's certificate is not signed by an authority that this machine trusts; name the authority's "
        "certificate with &sslrootcert=FILE (hosted databases offer it for download)",
    ),
    ((ssl.SSLError,), "the TLS handshake failed; check that host and port are those of a PostgreSQL server"),
    (
        (TimeoutError,),
        "the database does not answer in time; a paused project has to be resumed, a firewall opened, a server behind "
        "a pooler started",
    ),
    ((OSError,), "the database cannot be reached"),
)
