"""Which process serves a data folder. postmaster.pid alone proves nothing: pids are recycled."""

from pathlib import Path
from typing import NamedTuple

import psutil


class Postmaster(NamedTuple):
    """PostgreSQL's first process, the parent of all the others."""

    pid: int
    port: int


def living_postmaster(data: Path) -> Postmaster | None:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, port = int(lines[0]), int(lines[3])
        process = psutil.Process(pid)
        program, *arguments = process.cmdline()
        # The command line before the cwd: root in a container may not read another user's cwd.
        ours = Path(program).name == "postgres" and (str(data) in arguments or process.cwd() == str(data))
    except (FileNotFoundError, IndexError, ValueError, psutil.Error):
        return None
    return Postmaster(pid, port) if ours else None


def forget_recycled_pid(data: Path) -> None:
    """Remove a pid file that names a living stranger, or nobody: PostgreSQL would refuse to start.

    One that names a dead process stays: PostgreSQL looks through it for sessions left behind.
    """
    pid_file = data / "postmaster.pid"
    pid = pid_file.read_text().partition("\n")[0] if pid_file.exists() else ""
    if not pid.isdecimal() or psutil.pid_exists(int(pid)):
        pid_file.unlink(missing_ok=True)
