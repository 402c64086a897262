"""What a failed connection means, and what to do, in words for someone who has not seen it before."""

import re
import socket
import ssl

import asyncpg
from sqlalchemy.exc import SQLAlchemyError


def explain(error: BaseException) -> str:
    """What a failed connection means, and what to do."""
    cause = error.__cause__ or getattr(error, "orig", None)
    original = cause if isinstance(error, SQLAlchemyError) and isinstance(cause, BaseException) else error
    if isinstance(original.__cause__, Exception):
        # Not a CancelledError: that is only how a time limit ends what takes too long.
        original = original.__cause__
    said = _said_by(original)
    for pattern, meaning in _SAID:
        if re.search(pattern, str(original), re.IGNORECASE):
            return f"{meaning} ({said})"
    for kinds, meaning in _MEANINGS:
        if isinstance(original, kinds):
            return f"{meaning} ({said})"
    return f"the database failed: {said}"


def _said_by(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


_REFUSED = (
    "the database refuses the user or the password; check both in DATABASE_URL, and percent-encode the characters "
    "@ / # % : ? of the password (or give DB_USER and DB_PASSWORD as they are)"
)

_NO_DATABASE = "there is no such database on the server; create it, or correct the name"

# What only the message tells apart: hosted databases and poolers use one code for many things.
_SAID = (
    # So says PgBouncer, with the code of a protocol violation.
    (r"^SASL authentication failed|^password authentication failed|^no such user", _REFUSED),
    (
        r"no pg_hba\.conf entry .*no encryption|SSL (connection is )?required|connection is insecure",
        "the database lets nobody in without TLS; add ?sslmode=require to DATABASE_URL (verify-full is safer)",
    ),
    (r'^database ".*" does not exist', _NO_DATABASE),
    (r"no pg_hba\.conf entry", "the database's rules (pg_hba.conf) let nobody in with this user, host and database"),
    (
        r"rejected SSL upgrade",
        "the server does not speak TLS, and sslmode asks for it; correct host and port, or say sslmode=disable "
        "where the way to it is safe",
    ),
    (
        r"tenant or user not found|tenant/user .*not found|no more connections allowed",
        "the pooler does not know this project or user; with Supabase the user is called postgres.PROJECT, and a "
        "project paused for lack of use has to be restored in its dashboard first",
    ),
    (
        r"endpoint .*(disabled|suspended)|project .*(paused|suspended)|compute .*(quota|limit)",
        "the database project is paused; resume it in the provider's dashboard, then start again",
    ),
    (
        r"(server login (has been )?fail|server_login_retry|connect failed|cannot connect to server)",
        "the pooler answers, but cannot reach or enter the database behind it; is that running, and not paused?",
    ),
    (
        r"hostname mismatch|doesn't match",
        "the server's certificate is for another host; correct the host, or say sslmode=verify-ca to do without the "
        "name",
    ),
)

_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((asyncpg.InvalidPasswordError,), _REFUSED),
    (
        (asyncpg.InvalidAuthorizationSpecificationError,),
        "the database does not let this user in; check the user, and whether it asks for TLS (?sslmode=require)",
    ),
    ((asyncpg.InvalidCatalogNameError,), _NO_DATABASE),
    (
        (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError),
        "the database is not migrated; run `ledger migrate`",
    ),
    (
        (asyncpg.InsufficientPrivilegeError,),
        "the database user lacks a privilege: the service's must be a member of ledger_service (`ledger doctor`), and "
        "migrate, reset, verify, rebuild, replay need the owner in DIRECT_DATABASE_URL",
    ),
    (
        (asyncpg.ReadOnlySQLTransactionError,),
        "this database can only be read: it is a replica, or set so; DATABASE_URL must lead to the primary, a replica "
        "goes into REPLICA_DATABASE_URL",
    ),
    ((asyncpg.TooManyConnectionsError,), "the database takes no more connections; close some or raise the limit"),
    (
        (asyncpg.DiskFullError,),
        "the database's disk is full; make room or enlarge it, and it goes on by itself (a PostgreSQL that has stopped "
        "must be started again)",
    ),
    ((asyncpg.CannotConnectNowError,), "the database is starting or stopping; wait a moment and try again"),
    (
        (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError),
        "a pooler in transaction mode seems to lie before the database; add ?pgbouncer=true to DATABASE_URL",
    ),
    (
        (socket.gaierror,),
        "the database's host is not known; check the host name, and an unencoded @ or / in a password; the host of a "
        "paused project is not known either",
    ),
    ((ConnectionRefusedError,), "nothing answers at the database's host and port; is it running, is the port right?"),
    (
        (ssl.SSLCertVerificationError,),
        "nobody whom this machine trusts vouches for the server's certificate; name the authority's certificate with "
        "&sslrootcert=FILE (hosted databases offer it for download)",
    ),
    ((ssl.SSLError,), "TLS with the database's server failed; are host and port those of a PostgreSQL?"),
    (
        (TimeoutError,),
        "the database does not answer in time; a paused project has to be resumed, a firewall opened, a server behind "
        "a pooler started",
    ),
    ((OSError,), "the database cannot be reached"),
)
