"""Where it was measured: machine, versions, settings."""

import platform
import re
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

import ledger
from ledger.bench.load import generator
from ledger.bench.report import Machine
from ledger.bench.stage import Stage

SETTINGS = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
)
LIBRARIES = ("aiohttp", "asyncpg", "msgspec", "sqlalchemy", "uvloop")


async def describe(stage: Stage) -> Machine:
    """Describe the machine and the server that is measured on."""
    async with stage.connection(stage.server_url) as connection:
        settings = {name: str(await connection.fetchval("SELECT current_setting($1)", name)) for name in SETTINGS}
        postgresql = str(await connection.fetchval("SHOW server_version"))
    return Machine(
        processors=psutil.cpu_count() or 0,
        processor=_processor(),
        memory_gb=round(psutil.virtual_memory().total / 1024**3, 1),
        file_system=_file_system(stage.folder),
        system=platform.platform(),
        versions={
            "ledger": ledger.__version__,
            "python": platform.python_version(),
            "postgresql": postgresql,
            **{name: version(name) for name in LIBRARIES},
        },
        postgresql_settings=settings,
        load=generator(),
    )


def _processor() -> str:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """The kind of file system that the data lies on: in memory, durability costs nothing and figures flatter."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"
