"""Find the postmaster process of a data folder; postmaster.pid proves nothing, since pids are reused."""

from pathlib import Path
from typing import NamedTuple

import psutil


class Postmaster(NamedTuple):
    """The main process of a PostgreSQL server, the parent of all others."""

    pid: int
    port: int


def running_postmaster(data: Path) -> Postmaster | None:
    """Return the postmaster that serves a data folder; None if it is not running."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, port = int(lines[0]), int(lines[3])
        process = psutil.Process(pid)
        program, *arguments = process.cmdline()
        # The command line first: root in a container may not be allowed to read the working directory of another user.
        is_match = Path(program).name == "postgres" and (str(data) in arguments or process.cwd() == str(data))
    except (FileNotFoundError, IndexError, ValueError, psutil.Error):
        return None
    return Postmaster(pid, port) if is_match else None


def remove_reused_pid_file(data: Path) -> None:
    """Remove a pid file that names no pid or the pid of another running process: PostgreSQL would refuse to start.

    A file that names a dead process stays: PostgreSQL uses it to find sessions that are still running.
    """
    pid_file = data / "postmaster.pid"
    pid = pid_file.read_text().partition("\n")[0] if pid_file.exists() else ""
    if not pid.isdecimal() or psutil.pid_exists(int(pid)):
        pid_file.unlink(missing_ok=True)
