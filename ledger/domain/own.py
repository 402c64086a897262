"""The ledger's own events, judged: each is recorded as it comes, but a text can be erased only once."""

from ledger.domain.book import Book
from ledger.domain.errors import NothingToErase
from ledger.domain.event import Candidate, Receipt
from ledger.domain.ledger import PayloadErased


def require_text_to_erase(book: Book, candidate: Candidate) -> None:
    """Refuse an erasure where there is nothing to erase; other events pass.

    Raises:
        NothingToErase: the event never had free text, or has lost it.
    """
    if not isinstance(candidate.payload, PayloadErased):
        return
    position = candidate.payload.position
    if position not in book.erasable:
        raise NothingToErase(f"the event at position {position} has no free text")
    if not book.erasable[position]:
        raise NothingToErase(f"the free text of the event at position {position} was erased already")


def judge_own(book: Book, candidate: Candidate) -> Receipt:
    """Record an event of the category `ledger`."""
    if isinstance(candidate.payload, PayloadErased):
        book.put(book.erasable, candidate.payload.position, False)
    receipt = book.record(candidate, None, None)
    book.put(book.versions, candidate.stream_id, receipt.version)
    return receipt
