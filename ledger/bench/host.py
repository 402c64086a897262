"""Describes the host of a benchmark run: hardware, versions, PostgreSQL settings."""

import platform
import re
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil

import ledger
from ledger.bench.environment import Environment
from ledger.bench.load_process import GENERATOR
from ledger.bench.report import Host

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


async def describe(environment: Environment) -> Host:
    """Return the hardware, versions and settings of this host and its server."""
    async with environment.connection(environment.server_url) as connection:
        settings = {name: str(await connection.fetchval("SELECT current_setting($1)", name)) for name in SETTINGS}
        postgresql = str(await connection.fetchval("SHOW server_version"))
    return Host(
        processors=psutil.cpu_count() or 0,
        processor=_processor(),
        memory_gb=round(psutil.virtual_memory().total / 1024**3, 1),
        file_system=_file_system(environment.folder),
        system=platform.platform(),
        versions={
            "ledger": ledger.__version__,
            "python": platform.python_version(),
            "postgresql": postgresql,
            **{name: version(name) for name in LIBRARIES},
        },
        postgresql_settings=settings,
        load=GENERATOR,
    )


def _processor() -> str:
    with suppress(OSError):
        if match := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return match[1]
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system with the data: on one in memory, durability costs nothing."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"
