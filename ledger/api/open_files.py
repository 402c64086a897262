"""The limit of open files, which bounds the number of client connections."""

import logging
import resource

logger = logging.getLogger(__name__)

OTHER_FILES = 256
"""Open files other than client connections: database connections, listening sockets, logs."""


def raise_open_file_limit(connections: int) -> int:
    """Raise the soft limit of open files as needed for `connections`; return how many connections it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = connections if soft == resource.RLIM_INFINITY else min(connections, max(1, soft - OTHER_FILES))
    if allowed < connections:
        logger.warning(
            "the limit of open files is %s: accepting at most %s connections, not %s", soft, allowed, connections
        )
    return allowed
