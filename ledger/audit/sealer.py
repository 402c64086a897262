"""The sealer: hashes what is new in the log into the tree, and signs how far it goes.

It runs where the private key is, one at a time (the row of `ledger.log_checkpoint` is locked). Before each signature
it holds the log against the last checkpoint that it keeps outside the database, and refuses to sign what does not
extend it: a log that became shorter, or other than it was, is for an operator to explain.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from ledger.audit import tree_store
from ledger.audit.note import NoteError, Signer, Verifier, sign
from ledger.audit.signed_checkpoint import Checkpoint
from ledger.audit.signing_files import SigningFiles
from ledger.audit.tiles import TILE_WIDTH, Tile
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.audit.tree_store import Sealed, TreeDamagedError
from ledger.backoff import Backoff
from ledger.database import Connection, Database
from ledger.domain.errors import LedgerError
from ledger.log.notifications import LogSignal
from ledger.log.read import read_head

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

CHUNK_EVENTS = 16_384
READERS = 2
"""So many connections read and hash what comes next, each a chunk, where there is more than one."""

SEAL_EVENTS_MAX = 1_000_000
"""After so many events a checkpoint is signed on the way: a long log is sealed in transactions of bounded length."""

SEAL_SECONDS = 1.0
"""Signed at most this often while the log grows, so within two seconds of a commit."""

RETRY_SECONDS = 5.0

TIMEOUTS = "SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"


class RollbackError(LedgerError):
    """The log is not an extension of what was signed before; the message says what differs, and where."""


class Sealer:
    """Seals the log. Run it as a task."""

    def __init__(self, database: Database, home: SigningFiles, signer: Signer) -> None:
        self._database = database
        self._home = home
        self._signer = signer

    async def run(self, signal: LogSignal) -> None:
        """Seal what comes until cancelled; nothing runs while nothing is new."""
        backoff = Backoff(SEAL_SECONDS)
        while True:
            seen = signal.generation
            try:
                if await self.seal():
                    backoff.reset()
                pause = backoff.next(signal.idle_seconds_max)
            except RollbackError as error:
                logger.critical("NOT SEALED: %s", error)
                pause = RETRY_SECONDS
            except Exception:
                logger.exception("sealing failed, next try in %.0f s", RETRY_SECONDS)
                pause = RETRY_SECONDS
            await asyncio.sleep(min(pause, SEAL_SECONDS))
            if pause > SEAL_SECONDS:
                await signal.wait(seen, pause - SEAL_SECONDS)

    async def seal(self, events_max: int | None = None) -> int:
        """Seal what is new, and sign.

        Args:
            events_max: at most so many; `SEAL_EVENTS_MAX` when None.

        Returns:
            how many events were sealed; 0 where nothing is new, or where another sealer is at it.

        Raises:
            RollbackError: the log does not extend what was signed; recorded, and shown by the service.
        """
        async with self._database.connection() as connection:
            try:
                async with connection.transaction():
                    return await self._seal(connection, events_max or SEAL_EVENTS_MAX)
            except RollbackError as error:
                await connection.execute(tree_store.REFUSE, str(error))
                refusal = error
        raise refusal

    async def _seal(self, connection: Connection, events_max: int) -> int:
        await connection.execute(TIMEOUTS)
        row = await connection.fetchrow(tree_store.LOCK_SEALED)
        if row is None:
            # Another one is at it, unless there is none to lock.
            await tree_store.read_sealed(connection)
            return 0
        sealed = Sealed(*row)
        head = await read_head(connection)
        # An operator may have given up the log that this name belonged to.
        signer = self._signer.renamed(self._home.origin)
        kept = self._read_kept(sealed, signer.verifier)
        edge = await self._check(connection, sealed, kept, head)
        is_kept = kept is not None and kept.size == sealed.size
        if edge.size == head and sealed.note is not None and sealed.refusal is None and is_kept:
            return 0
        target = min(head, edge.size + events_max)
        if kept is not None and edge.size < kept.size:
            # Sealed here before, but not known to this database: it must come to the same root on the way.
            target = max(target, kept.size)
            edge = await self._grow(connection, edge, kept.size)
            if edge.root != kept.root:
                raise RollbackError(
                    f"the first {kept.size:,} events are not those that were signed as {self._home.checkpoint_file}: "
                    "events have been replaced (a database restored from a backup and then continued?)"
                )
        edge = await self._grow(connection, edge, target)
        origin = signer.verifier.name
        note = sign(Checkpoint(origin, edge.size, edge.root).text, signer)
        # Before the commit: a checkpoint that is out must be known here, whatever happens to the database.
        self._home.write_checkpoint(note)
        await connection.execute(tree_store.SEAL, edge.size, edge.root, origin, signer.verifier.text, note)
        return edge.size - sealed.size

    def _read_kept(self, sealed: Sealed, verifier: Verifier) -> Checkpoint | None:
        if sealed.verifier_key not in (None, verifier.text):
            raise RollbackError(
                f"the log was sealed with the key {sealed.verifier_key}, the key here is {verifier.text}"
            )
        try:
            return self._home.read_checkpoint(verifier)
        except NoteError as error:
            raise RollbackError(str(error)) from None

    async def _check(self, connection: Connection, sealed: Sealed, kept: Checkpoint | None, head: int) -> RightEdge:
        """Hold the stored tree against the log's length and the checkpoint kept here; the tree's right edge."""
        longest = max(sealed.size, kept.size if kept else 0)
        if head < longest:
            raise RollbackError(
                f"the log has {head:,} events, but {longest:,} were signed: the last {longest - head:,} are missing "
                "(a database restored from a backup?)"
            )
        try:
            edge = await tree_store.read_edge(connection, sealed.size)
            if edge.root != sealed.root:
                raise RollbackError(f"the stored tiles do not give the sealed root of {sealed.size:,} events")
            await self._check_last_events(connection, sealed.size)
            if kept is not None and kept.size <= sealed.size:
                same_size = kept.size == sealed.size
                root = sealed.root if same_size else await tree_store.read_root(connection, kept.size)
                if root != kept.root:
                    raise RollbackError(
                        f"the tree of the first {kept.size:,} events has another root than the one signed as "
                        f"{self._home.checkpoint_file}: events have been replaced"
                    )
        except TreeDamagedError as error:
            raise RollbackError(f"the tree of the {sealed.size:,} sealed events is damaged: {error}") from None
        return edge

    async def _check_last_events(self, connection: Connection, size: int) -> None:
        """A log that lost its end may have grown past it since, which the tiles do not show."""
        if size == 0:
            return
        index, last = divmod(size - 1, TILE_WIDTH)
        hashes = await tree_store.read_hashes(connection, Tile(0, index, last + 1))
        if await tree_store.read_leaves(connection, index * TILE_WIDTH, size) != hashes:
            raise RollbackError(
                f"the last of the {size:,} sealed events are not those that were sealed: events have been replaced"
            )

    async def _grow(self, connection: Connection, edge: RightEdge, target: int) -> RightEdge:
        try:
            async with aclosing(self._leaves(connection, edge.size, target)) as chunks:
                async for leaves in chunks:
                    tiles, edge = append_leaves(edge, leaves)
                    await tree_store.write_tiles(connection, tiles)
        except TreeDamagedError as error:
            raise RollbackError(str(error)) from None
        return edge

    async def _leaves(self, connection: Connection, after: int, until: int) -> AsyncGenerator[bytes]:
        """The leaf hashes in order, by chunks. Where there are more, some are made at once: most of it is hashing."""
        starts = iter(range(after, until, CHUNK_EVENTS))
        # Behind a pooler there may be no other connection than the one that is held.
        if until - after <= CHUNK_EVENTS or self._database.is_pooled:
            for start in starts:
                yield await tree_store.read_leaves(connection, start, min(until, start + CHUNK_EVENTS))
            return
        reading: deque[asyncio.Task[bytes]] = deque()

        def read_on() -> None:
            for start in itertools.islice(starts, READERS - len(reading)):
                reading.append(asyncio.create_task(self._read_chunk(start, min(until, start + CHUNK_EVENTS))))

        try:
            read_on()
            while reading:
                leaves = await reading.popleft()
                read_on()
                yield leaves
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _read_chunk(self, after: int, until: int) -> bytes:
        async with self._database.connection() as connection:
            return await tree_store.read_leaves(connection, after, until)


async def find_sealer(database: Database, home: SigningFiles, *, make_key: bool = False) -> Sealer | None:
    """The sealer of this process; None where the key is elsewhere.

    Args:
        make_key: make one where nobody has ever sealed this log.

    Raises:
        NoteError: the key cannot be read.
    """
    signer = home.read_signer()
    if signer is None and make_key:
        async with database.connection() as connection:
            sealed = await tree_store.read_sealed(connection)
        if sealed.verifier_key is None:
            signer = home.make_signer()
    return Sealer(database, home, signer) if signer is not None else None
