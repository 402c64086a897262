"""An operator's answer to a sealer that refuses to sign: give that log up, say why, and begin another."""

from ledger.audit import tree_store
from ledger.audit.signing_files import SigningFiles
from ledger.database import Database
from ledger.domain.catalogue import type_of
from ledger.domain.errors import LedgerError
from ledger.domain.event import Receipt, Request
from ledger.domain.ledger_events import RollbackAccepted
from ledger.log.appender import Appender
from ledger.log.prepare import prepare


class NothingToAcceptError(LedgerError):
    """The sealer does not refuse to sign."""


async def accept_rollback(
    database: Database, appender: Appender, home: SigningFiles, *, by: str, reason: str
) -> RollbackAccepted:
    """Record the decision, put the last checkpoint away, and have the whole log sealed anew under another origin.

    Whoever holds the old checkpoint still sees that it was given up: the new log has another name and key.

    Args:
        home: where the key and the last checkpoint are.
        by: who decided it.

    Raises:
        NothingToAcceptError: the sealer does not refuse, or the key is not here.
    """
    if home.read_signer() is None:
        raise NothingToAcceptError(f"there is no key at {home.key_file}: decide where the log is sealed")
    async with database.connection() as connection:
        sealed = await tree_store.read_seal_status(connection)
    if sealed.refusal is None:
        raise NothingToAcceptError(f"the sealer does not refuse to sign: {sealed.size:,} events are sealed")
    decided = RollbackAccepted(
        origin=sealed.origin or home.origin, size=sealed.size, by=by, refusal=sealed.refusal[:2000], reason=reason
    )
    (verdict,) = await appender.append(Request([prepare(type_of(RollbackAccepted), decided, actor="local")]))
    assert isinstance(verdict, Receipt), verdict
    async with database.connection() as connection, connection.transaction():
        # The sealer waits for this row: it meets either the old log and its checkpoint, or neither.
        row = await connection.fetchrow(tree_store.LOCK_SEALED_WAITING)
        given_up = tree_store.Sealed(*row) if row is not None else None
        home.give_up(sealed.origin or home.origin, given_up.note if given_up else None)
        await connection.execute(tree_store.BEGIN_ANEW)
    return decided
