"""TLS: translate libpq's `sslmode` and `sslrootcert` into the `ssl` argument of asyncpg."""

import ssl
from pathlib import Path

from ledger.config import ConfigError

SYSTEM = "system"
"""libpq's `sslrootcert` for the certificate authorities of the system; implies `verify-full`."""

USER_ROOT_CERTIFICATE = Path(".postgresql", "root.crt")


def tls_argument(mode: str | None, root_certificate: str | None) -> "ssl.SSLContext | str | None":
    """Return the `ssl` argument for asyncpg.

    `require` encrypts and accepts any certificate; with a root certificate it means `verify-ca`, as in libpq.
    `verify-ca` and `verify-full` without a root certificate trust `~/.postgresql/root.crt`. If that file does not exist
    they trust the authorities of the system, unlike libpq, because hosted databases need that.

    Args:
        mode: the `sslmode`.
        root_certificate: the `sslrootcert`: a path, or `system`.

    Returns:
        None if neither is set: the driver then prefers TLS.

    Raises:
        ConfigError: the root certificate cannot be used.
    """
    if root_certificate == SYSTEM and mode in (None, "require", "verify-ca", "verify-full"):
        mode, root_certificate = "verify-full", None
    elif mode in ("verify-ca", "verify-full") and root_certificate is None:
        user_certificate = Path.home() / USER_ROOT_CERTIFICATE
        root_certificate = str(user_certificate) if user_certificate.is_file() else None
    elif mode == "require" and root_certificate is not None:
        mode = "verify-ca"
    if mode not in ("require", "verify-ca", "verify-full"):
        return mode
    try:
        context = ssl.create_default_context(cafile=root_certificate)
    except OSError as error:
        reason = error.strerror or "it contains no certificate"
        raise ConfigError(f"sslrootcert {root_certificate} cannot be used: {reason}") from None
    # Python 3.13 and later check certificates of private authorities more strictly than libpq does.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context
