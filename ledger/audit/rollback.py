"""Accept a rollback after the sealer refused to sign: record why, and seal under a new origin."""

from ledger.audit import tree_store
from ledger.audit.signing_files import SigningFiles, key_mismatch
from ledger.database import Database
from ledger.domain.catalogue import type_of
from ledger.domain.errors import LedgerError
from ledger.domain.event import Receipt, Request
from ledger.domain.ledger_events import RollbackAccepted
from ledger.log.appender import Appender
from ledger.log.prepare import prepare


class NothingToAcceptError(LedgerError):
    """There is no rollback to accept: the sealer does not refuse to sign."""


async def accept_rollback(
    database: Database, appender: Appender, files: SigningFiles, *, by: str, reason: str, actor: str = "local"
) -> RollbackAccepted:
    """Record the decision, archive the last checkpoint, and reset the tree so that the log is sealed from its start.

    Auditors with a checkpoint of the old log can see that it was given up: the new log has another origin and
    verifier key.

    Args:
        database: of the log.
        appender: appends the event `ledger.rollback_accepted`.
        files: the signing files; the private key must be there.
        by: name of the operator.
        reason: of the operator, up to 500 characters.
        actor: the `actor` of the recorded event.

    Returns:
        The payload of the recorded event.

    Raises:
        NothingToAcceptError: the sealer does not refuse to sign, or the key is not on this machine.
    """
    signer = files.read_signer()
    if signer is None:
        raise NothingToAcceptError(f"there is no key at {files.key_file}: run this on the machine that seals the log")
    async with database.connection() as connection:
        status = await tree_store.read_seal_status(connection)
    # After the loss of a key, its successor cannot seal either; the sealer does not store that as a refusal.
    refusal = status.refusal or key_mismatch(status.verifier_key, signer.verifier)
    if refusal is None:
        raise NothingToAcceptError(f"the sealer does not refuse to sign: {status.size:,} events are sealed")
    decision = RollbackAccepted(
        origin=status.origin or files.origin, size=status.size, by=by, refusal=refusal[:2000], reason=reason
    )
    (answer,) = await appender.append(Request([prepare(type_of(RollbackAccepted), decision, actor=actor)]))
    assert isinstance(answer, Receipt), answer
    async with database.connection() as connection, connection.transaction():
        # The sealer locks this row too, so it sees either the old tree and its checkpoint, or neither.
        row = await connection.fetchrow(tree_store.LOCK_SEALED_TREE)
        old_tree = tree_store.SealedTree(*row) if row is not None else None
        files.archive_checkpoint(status.origin or files.origin, old_tree.note if old_tree else None)
        await connection.execute(tree_store.RESET_SEALED_TREE)
    return decision
