"""The sealer: hashes new events into the Merkle tree, signs a checkpoint, refuses after a rollback.

It runs on a machine that has the private key. One sealer is active at a time: it locks the row of
`ledger.log_checkpoint`. Before each signature it checks the log against the last checkpoint, which is stored outside
the database. It refuses to sign a log that does not extend that checkpoint, because the log has become shorter or was
changed: an operator must find out why.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ledger.audit import tree_store
from ledger.audit.note import NoteError, Signer, Verifier, open_note, sign
from ledger.audit.signed_checkpoint import Checkpoint
from ledger.audit.signing_files import SigningFiles, is_same_log, key_mismatch
from ledger.audit.tiles import TILE_WIDTH, Tile
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.audit.tree_store import CHUNK_EVENTS, SealedTree, TreeDamagedError
from ledger.backoff import Backoff
from ledger.database import Connection, Database, log_level
from ledger.domain.errors import LedgerError
from ledger.log.notifications import LogSignal
from ledger.log.read import read_head

logger = logging.getLogger(__name__)

READERS = 2
"""Connections that read and hash the next chunks at the same time, if there is more than one chunk."""

SEAL_EVENTS_MAX = 1_000_000
"""Events per checkpoint: a long log is sealed in several transactions of bounded length."""

SEAL_SECONDS = 1.0
"""Seconds between checkpoints while the log grows, so that an event is sealed within two seconds of its commit."""

RETRY_SECONDS = 5.0

OTHER_KEY_ADVICE = (
    "use the key that sealed the log, or remove the key of this process; if that key is lost, begin a new seal with "
    "`ledger audit accept-rollback`"
)

SEAL_TIMEOUTS = "SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"


class RollbackError(LedgerError):
    """The log does not extend the last signed checkpoint."""


class CheckpointFileError(LedgerError):
    """The checkpoint cannot be stored outside the database, so it is not published either."""


class OtherKeyError(LedgerError):
    """The log is sealed with another key: a problem of this process, not of the log."""


class Sealer:
    """Seals the log. Run it as a task. `problem` says, in words, why this process cannot seal; None if it can."""

    def __init__(self, database: Database, files: SigningFiles, signer: Signer) -> None:
        """Set up a sealer; `run` starts it.

        Args:
            database: of the log to seal.
            files: with the last checkpoint; each new checkpoint is written there.
            signer: the private key.
        """
        self._database = database
        self._files = files
        self._signer = signer
        self.problem: str | None = None

    async def run(self, signal: LogSignal) -> None:
        """Seal new events until cancelled. While there are none, wait for the signal."""
        backoff = Backoff(SEAL_SECONDS)
        logged = ""
        while True:
            seen = signal.generation
            try:
                if await self.seal():
                    backoff.reset()
                self.problem = None
                pause = backoff.next(signal.idle_seconds_max)
                logged = ""
            except RollbackError as error:
                # `/readyz`, `ledger status` and `ledger doctor` keep showing it.
                logger.log(logging.DEBUG if str(error) == logged else logging.CRITICAL, "NOT SEALED: %s", error)
                logged = str(error)
                pause = RETRY_SECONDS
            except OtherKeyError as error:
                if self.problem is None:
                    logger.critical("NOT SEALING in this process: %s", error)
                self.problem, pause = str(error), RETRY_SECONDS
            except Exception as error:
                level = log_level(error, logging.ERROR)
                logger.log(level, "sealing failed; next attempt in %.0f s", RETRY_SECONDS, exc_info=error)
                pause = RETRY_SECONDS
            await asyncio.sleep(min(pause, SEAL_SECONDS))
            if pause > SEAL_SECONDS:
                await signal.wait(seen, pause - SEAL_SECONDS)

    async def seal(self, events_max: int | None = None) -> int:
        """Seal new events and sign a checkpoint.

        Args:
            events_max: seal at most this many events; `SEAL_EVENTS_MAX` if None.

        Returns:
            The number of events sealed; 0 if there are no new ones, or another sealer holds the lock.

        Raises:
            RollbackError: the log does not extend what was signed. The refusal is stored in the database, so that the
                service can report it.
            OtherKeyError: the log is sealed with another key than the one of this process.
        """
        async with self._database.connection() as connection:
            try:
                async with connection.transaction():
                    return await self._seal(connection, events_max or SEAL_EVENTS_MAX)
            except RollbackError as error:
                await connection.execute(tree_store.STORE_REFUSAL, str(error))
                refusal = error
        raise refusal

    async def _seal(self, connection: Connection, events_max: int) -> int:
        await connection.execute(SEAL_TIMEOUTS)
        row = await connection.fetchrow(tree_store.TRY_LOCK_SEALED_TREE)
        if row is None:
            # Either another sealer holds the lock, or the row was deleted: then this raises.
            await tree_store.read_sealed_tree(connection)
            return 0
        sealed = SealedTree(*row)
        head = await read_head(connection)
        # The origin changes when an operator gives up the log.
        signer = self._signer.renamed(self._files.origin)
        local = self._read_local_checkpoint(sealed, signer.verifier)
        edge = await self._check_sealed_tree(connection, sealed, local, head)
        is_local_current = local is not None and local.size == sealed.size
        if edge.size == head and sealed.note is not None and sealed.refusal is None and is_local_current:
            return 0
        target = min(head, edge.size + events_max)
        if local is not None and edge.size < local.size:
            # Signed here, but the database does not know of it: its events must give the signed root.
            target = max(target, local.size)
            edge = await self._append_events(connection, edge, local.size)
            if edge.root != local.root:
                raise RollbackError(
                    f"the first {local.size:,} events are not those that were signed as {self._files.checkpoint_file}: "
                    "events have been replaced (a database restored from a backup and then continued?)"
                )
        edge = await self._append_events(connection, edge, target)
        origin = signer.verifier.name
        note = sign(Checkpoint(origin, edge.size, edge.root).text, signer)
        # Before the commit: once others can see the checkpoint, this file must have it, whatever happens to the
        # database.
        try:
            self._files.write_checkpoint(note)
        except OSError as error:
            raise CheckpointFileError(f"{self._files.checkpoint_file} cannot be written: {error.strerror}") from None
        await connection.execute(tree_store.STORE_SEAL, edge.size, edge.root, origin, signer.verifier.text, note)
        return edge.size - sealed.size

    def _read_local_checkpoint(self, sealed: SealedTree, verifier: Verifier) -> Checkpoint | None:
        if (difference := key_mismatch(sealed.verifier_key, verifier)) is not None:
            if _has_signed(verifier, sealed.note):
                raise RollbackError(f"{difference}, which signed the stored checkpoint: the stored key was changed")
            if is_same_log(sealed.verifier_key, verifier):
                raise RollbackError(difference)
            raise OtherKeyError(f"{difference}. Next: {OTHER_KEY_ADVICE}")
        try:
            return self._files.read_checkpoint(verifier)
        except NoteError as error:
            raise RollbackError(str(error)) from None

    async def _check_sealed_tree(
        self, connection: Connection, sealed: SealedTree, local: Checkpoint | None, head: int
    ) -> RightEdge:
        """Check the stored tree against the log's length and the local checkpoint; return the tree's right edge."""
        longest = max(sealed.size, local.size if local else 0)
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
            if local is not None and local.size <= sealed.size:
                same_size = local.size == sealed.size
                root = sealed.root if same_size else await tree_store.read_root(connection, local.size)
                if root != local.root:
                    raise RollbackError(
                        f"the tree of the first {local.size:,} events has another root than the one signed as "
                        f"{self._files.checkpoint_file}: events have been replaced"
                    )
        except TreeDamagedError as error:
            raise RollbackError(f"the tree of the {sealed.size:,} sealed events is damaged: {error}") from None
        return edge

    async def _check_last_events(self, connection: Connection, size: int) -> None:
        """Check the events of the last tile: a log that lost its end may have grown again, which no tile shows."""
        if size == 0:
            return
        index, last = divmod(size - 1, TILE_WIDTH)
        hashes = await tree_store.read_hashes(connection, Tile(0, index, last + 1))
        if await tree_store.read_leaf_hashes(connection, index * TILE_WIDTH, size) != hashes:
            raise RollbackError(
                f"the last of the {size:,} sealed events are not those that were sealed: events have been replaced"
            )

    async def _append_events(self, connection: Connection, edge: RightEdge, target: int) -> RightEdge:
        try:
            async with aclosing(self._read_chunks(connection, edge.size, target)) as chunks:
                async for leaves in chunks:
                    tiles, edge = append_leaves(edge, leaves)
                    await tree_store.write_tiles(connection, tiles)
        except TreeDamagedError as error:
            raise RollbackError(str(error)) from None
        return edge

    async def _read_chunks(self, connection: Connection, after: int, until: int) -> AsyncGenerator[bytes]:
        """Yield leaf hashes in order, by chunk. Several chunks are read in parallel: hashing takes most of the time."""
        starts = iter(range(after, until, CHUNK_EVENTS))
        # Behind a pooler the connection in use may be the only one that there is.
        if until - after <= CHUNK_EVENTS or self._database.is_pooled:
            for start in starts:
                yield await tree_store.read_leaf_hashes(connection, start, min(until, start + CHUNK_EVENTS))
            return
        reading: deque[asyncio.Task[bytes]] = deque()

        def start_readers() -> None:
            for start in itertools.islice(starts, READERS - len(reading)):
                reading.append(asyncio.create_task(self._read_chunk(start, min(until, start + CHUNK_EVENTS))))

        try:
            start_readers()
            while reading:
                leaves = await reading.popleft()
                start_readers()
                yield leaves
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _read_chunk(self, after: int, until: int) -> bytes:
        async with self._database.connection() as connection:
            return await tree_store.read_leaf_hashes(connection, after, until)


def _has_signed(verifier: Verifier, note: bytes | None) -> bool:
    try:
        return note is not None and bool(open_note(note, [verifier]))
    except NoteError:
        return False


async def find_sealer(database: Database, files: SigningFiles, *, make_key: bool = False) -> Sealer | None:
    """Return a sealer for this process, or None if the private key is not on this machine.

    Args:
        database: of the log to seal.
        files: the signing files.
        make_key: create a key if there is none and this log was never sealed.

    Returns:
        The sealer, not yet running, or None.

    Raises:
        NoteError: the key cannot be read.
    """
    signer = files.read_signer()
    if signer is None and make_key:
        async with database.connection() as connection:
            sealed = await tree_store.read_sealed_tree(connection)
        if sealed.verifier_key is None:
            signer = files.make_signer()
    return Sealer(database, files, signer) if signer is not None else None
