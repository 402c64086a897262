"""Move the data of the embedded server to the PostgreSQL version of this release, by dump and load."""

import shutil
from pathlib import Path

from sqlalchemy import make_url

from ledger.durable_files import sync_folder
from ledger.embedded.client_programs import ClientPrograms
from ledger.embedded.cluster import ROLE, UPGRADED, VERSION, Cluster
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.server import exclusive_server

DATABASES = """
SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres' ORDER BY datname
"""

RESTORE = ("pg_restore", "--exit-on-error", "--clean", "--if-exists", "--create", "--dbname=postgres")


def upgrade(home: Path) -> int:
    """Load the data of an older PostgreSQL into a new data folder, which then takes the place of the old one.

    The old folder is kept as HOME/postgres/data-<version>. It stays in its place until the new one is complete; the
    next start completes an exchange of the two that was interrupted.

    Args:
        home: the home of the server; no process may use it.

    Returns:
        the version of the data before; `VERSION` if there was nothing to do.

    Raises:
        EmbeddedError: the home has no server, is in use, has too little space, or its version is not installed.
    """
    cluster = Cluster(home)
    with exclusive_server(cluster):
        cluster.finish_upgrade()
        version = cluster.data_version()
        if version != VERSION:
            _upgrade(Cluster(home, version))
    return version


def _upgrade(old: Cluster) -> None:
    staging = old.folder / "upgrade"
    # The server of an upgrade that was killed may still run.
    Cluster(staging).stop()
    for leftover in (staging, old.folder / UPGRADED):
        shutil.rmtree(leftover, ignore_errors=True)
    _require_space(old)
    new = Cluster(staging)
    shutil.copy2(old.folder / "password", new.folder / "password")
    _copy(old, new)
    new.data.rename(old.folder / UPGRADED)
    sync_folder(old.folder)
    old.data.rename(old.folder / f"data-{old.version}")
    old.finish_upgrade()
    shutil.rmtree(staging, ignore_errors=True)


def _copy(old: Cluster, new: Cluster) -> None:
    """Dump every role and database of the old server, and load them into the new one."""
    try:
        programs = _programs(old, new.binaries)
        roles = programs.run("pg_dumpall", "--roles-only")
        names = programs.sql(DATABASES).splitlines()
        dumps = [new.folder / f"{number}.dump" for number in range(len(names))]
        for name, dump in zip(names, dumps, strict=True):
            programs.run("pg_dump", "--format=custom", f"--file={dump}", database=name)
    finally:
        old.stop()
    try:
        programs = _programs(new, new.binaries)
        # The superuser exists already, with the same password.
        programs.sql(roles.replace(f"CREATE ROLE {ROLE};\n", ""))
        for dump in dumps:
            programs.run(*RESTORE, dump)
            dump.unlink()
    finally:
        new.stop()


def _programs(cluster: Cluster, binaries: Path) -> ClientPrograms:
    """Start the server of a cluster; return the client programs for it."""
    return ClientPrograms(make_url(cluster.url(cluster.ensure_running())), binaries)


def _require_space(cluster: Cluster) -> None:
    """Raise EmbeddedError unless the disk has room for a copy of the data and for a dump."""
    needed = 2 * sum(path.stat().st_size for path in cluster.data.rglob("*") if path.is_file())
    free = shutil.disk_usage(cluster.folder).free
    if free < needed:
        raise EmbeddedError(
            f"The upgrade needs {needed // 10**6:,} MB in {cluster.folder}, and {free // 10**6:,} MB are free. "
            "Next: free or add space."
        )
