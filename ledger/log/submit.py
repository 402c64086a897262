"""Decode, authorize and append the events of a request, each separately: receipts or errors."""

from collections.abc import Iterator, Sequence

from ledger.domain.access import Caller, require_may_append
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Receipt, Request
from ledger.log.appender import Appender
from ledger.log.decode import read_candidate
from ledger.log.idempotency import IdempotencyKey, claim_of

EXPLAINED_BYTES_MAX = 1024 * 1024
"""Of the refused events of a request, the first ones up to this size together are searched for all their faults."""


def decode_each(
    texts: Sequence[bytes], caller: Caller, key: IdempotencyKey | None = None
) -> Iterator[Candidate | LedgerError]:
    """Decode the events of a request and check that the caller may append them.

    Args:
        texts: the JSON texts of the events.
        caller: the sender.
        key: the Idempotency-Key of the request, from which missing event ids are derived.

    Yields:
        for each text, in order, the candidate or the error.
    """
    derive_id = key.event_id if key is not None else None
    refused_bytes = 0
    for index, text in enumerate(texts):
        try:
            candidate = read_candidate(
                text,
                index,
                caller.name,
                derive_id,
                caller.allowed_campaign_ids,
                is_explained=refused_bytes < EXPLAINED_BYTES_MAX,
            )
            require_may_append(caller, candidate)
        except LedgerError as error:
            refused_bytes += len(text)
            yield error
        else:
            yield candidate


async def append_each(
    appender: Appender, decoded: Sequence[Candidate | LedgerError], key: IdempotencyKey | None = None
) -> list[Receipt | LedgerError]:
    """Append each event of a request separately: an error of one does not affect the others.

    Args:
        appender: the appender of this process.
        decoded: the candidates and errors, as `decode_each` yields them.
        key: the Idempotency-Key of the request.

    Returns:
        for each of them, in order, the receipt or the error. On return the accepted events are durable.

    Raises:
        Overloaded: the queue is full; nothing was recorded.
        DatabaseUnavailable: the database failed; retry with the same ids.
    """
    candidates = [item for item in decoded if isinstance(item, Candidate)]
    request = Request(candidates, independent=True, claim=await claim_of(key, decoded))
    verdicts = iter(await appender.append(request) if candidates else ())
    return [next(verdicts) if isinstance(item, Candidate) else item for item in decoded]
