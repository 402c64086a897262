"""libpq's words for TLS, `sslmode` and `sslrootcert`, as what asyncpg takes."""

import ssl
from pathlib import Path

from ledger.config import ConfigError

SYSTEM = "system"
"""libpq's word for the certificate authorities that the machine trusts; it implies that the host's name is checked."""

USERS_ROOT_CERTIFICATE = Path(".postgresql", "root.crt")


def tls_argument(mode: str | None, root_certificate: str | None) -> "ssl.SSLContext | str | None":
    """What asyncpg takes as `ssl`.

    `require` encrypts and believes any certificate, unless a root certificate is named: then it is `verify-ca`, as
    libpq has it. `verify-ca` and `verify-full` without one trust `~/.postgresql/root.crt`, and where that is missing,
    unlike libpq, the authorities of the machine, which is what hosted databases need.

    Returns:
        None where nothing was said: the driver prefers TLS.

    Raises:
        ConfigError: the root certificate cannot be used.
    """
    if root_certificate == SYSTEM and mode in (None, "require", "verify-ca", "verify-full"):
        mode, root_certificate = "verify-full", None
    elif mode in ("verify-ca", "verify-full") and root_certificate is None:
        users_own = Path.home() / USERS_ROOT_CERTIFICATE
        root_certificate = str(users_own) if users_own.is_file() else None
    elif mode == "require" and root_certificate is not None:
        mode = "verify-ca"
    if mode not in ("require", "verify-ca", "verify-full"):
        return mode
    try:
        context = ssl.create_default_context(cafile=root_certificate)
    except OSError as error:
        reason = error.strerror or "it holds no certificate"
        raise ConfigError(f"sslrootcert names {root_certificate}, which cannot be used: {reason}") from None
    # A private authority's certificate may lack what Python 3.13 and later insist on, and libpq does not.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context
