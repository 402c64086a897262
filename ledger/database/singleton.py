"""Rows that every ledger has exactly one of: the head of the log, the checkpoint of the read models."""

from typing import TypeVar

from ledger.domain.errors import LedgerError

HEAD_TABLE = "ledger.log_head"
CHECKPOINT_TABLE = "ledger.projection_checkpoints"

R = TypeVar("R")


class MissingRowError(LedgerError):
    """A row that every ledger has is missing."""

    def __init__(self, *tables: str) -> None:
        super().__init__(
            f"the only row of {' or '.join(tables)} is missing: it was deleted; restore the database from a backup"
        )


def require_row(row: R | None, *tables: str) -> R:
    """Return what was read from the only row of a table.

    Args:
        row: what was read; None if there was no row.
        tables: one of them has no row.

    Raises:
        MissingRowError: there was no row.
    """
    if row is None:
        raise MissingRowError(*tables)
    return row
