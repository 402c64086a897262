"""Run psql, pg_dump and pg_restore on the embedded server, connected as its superuser."""

import os
import subprocess
from pathlib import Path

from sqlalchemy import URL

from ledger.embedded.cluster import installed_binaries
from ledger.embedded.errors import EmbeddedError


class ClientPrograms:
    """Runs client programs, connected to one server. They run as the user of this process."""

    def __init__(self, url: URL, binaries: Path | None = None) -> None:
        """Make the object for a running server.

        Args:
            url: of the server, with the password.
            binaries: the folder of the programs; those of this release if None.
        """
        self._binaries = binaries or installed_binaries()
        # Not the environment of this process, which may contain secrets and other settings of PostgreSQL.
        self._environment = {
            "PATH": os.defpath,
            "LC_ALL": "C",
            "PGHOST": str(url.host),
            "PGPORT": str(url.port),
            "PGUSER": str(url.username),
            "PGPASSWORD": str(url.password),
            "PGREQUIREAUTH": "scram-sha-256",
        }

    def run(self, program: str, *arguments: str | Path, database: str = "postgres", stdin: str = "") -> str:
        """Run a program to its end, however long it takes.

        Args:
            program: such as `pg_dump`.
            arguments: of the program.
            database: to connect to.
            stdin: its standard input.

        Returns:
            its standard output.

        Raises:
            EmbeddedError: its exit code is not 0.
        """
        done = subprocess.run(  # noqa: S603
            [str(self._binaries / program), *map(str, arguments)],
            env={**self._environment, "PGDATABASE": database},
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedError(f"{program} failed: {done.stderr.strip()}")
        return done.stdout

    def sql(self, statements: str, database: str = "postgres") -> str:
        """Run statements with psql; return their results, a line for each row."""
        return self.run("psql", "-XqAtvON_ERROR_STOP=1", database=database, stdin=statements).strip()
