"""Whether other users of the machine can read or change a file with a key (`log.key`, `admin.key`)."""

import os
import stat
from pathlib import Path


def is_exposed(path: Path) -> bool:
    """Whether users other than the owner may read or write a file or a folder; False if it does not exist."""
    if os.name != "posix" or not path.exists():
        return False
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH))
