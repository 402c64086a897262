"""Offline verification of an export: a signed checkpoint and the ledger's rules, without a database.

Memory use depends on the number of streams, whose state is needed to judge later events, not on the number of events.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.audit.export_lines import ExportLine, at_line
from ledger.audit.merkle import leaf_hash
from ledger.audit.note import NoteError, Verifier, encode_base64, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.domain import money
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Recorded
from ledger.domain.log_history import LogHistory
from ledger.domain.rejudge import rejudge, to_candidate
from ledger.domain.working_state import WorkingState

CHUNK_LEAVES = 4_096
PROGRESS_LINES = 1_000


class ExportMismatchError(LedgerError):
    """The export is not the log for which the checkpoint was signed."""


class Balance(msgspec.Struct):
    """Amounts spent, and held by open holds."""

    spent: str
    held: str


class CampaignBalance(msgspec.Struct):
    """A campaign at the end of the log. `budget` is None if it has no limit."""

    id: UUID
    status: str
    currency: str
    budget: str | None
    spent: str
    held: str


class VerifiedExport(msgspec.Struct):
    """An export whose first `sealed` events are those of the checkpoint, and all of whose events follow the rules.

    `erased` is the number of recorded erasures, `missing_texts` that of texts that are missing without such a record, 0
    unless the export may end before it.
    """

    origin: str
    root: str
    sealed: int
    not_sealed: int
    erased: int
    missing_texts: int
    currencies: dict[str, Balance]
    campaigns: list[CampaignBalance]


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """Verify a signed checkpoint and return it; its origin must be the name of the key.

    Raises:
        ExportMismatchError: it is not a checkpoint, another key has signed it, or it is of another log.
    """
    try:
        checkpoint = Checkpoint.parse(open_note(note, [verifier]))
    except (NoteError, CheckpointError) as error:
        raise ExportMismatchError(f"the checkpoint: {error}") from None
    if checkpoint.origin != verifier.name:
        raise ExportMismatchError(
            f"the checkpoint is of the log {checkpoint.origin}, but the key is of the log {verifier.name}"
        )
    return checkpoint


def verify_export(
    lines: Iterable[ExportLine],
    checkpoint: Checkpoint,
    progress: Callable[[], None] = lambda: None,
    *,
    is_partial: bool = False,
) -> VerifiedExport:
    """Verify an export against a checkpoint, and replay its events.

    Args:
        lines: of the export, in order.
        checkpoint: with a verified signature.
        progress: called after every `PROGRESS_LINES` lines.
        is_partial: the export ends before the log, so that the events that record erasures may be missing.

    Returns:
        What was verified, and the balances at the end of the export.

    Raises:
        ExportError: a line is invalid, or its event could not have been recorded at this point of the log.
        ExportMismatchError: the export ends too early, or its entries do not give the signed root, or a text is
            missing whose erasure is not recorded.
    """
    tree, replay = _Tree(checkpoint), _Replay()
    for line in lines:
        # The replay first: its errors name the line, while a wrong root concerns all of them.
        with at_line(line):
            replay.add(line.event)
        tree.add(line.entry)
        if line.number % PROGRESS_LINES == 0:
            progress()
    tree.require_whole()
    missing = replay.history.missing_texts
    if missing and not is_partial:
        raise ExportMismatchError(f"{replay.history.describe_missing_texts()}, or verify it with --partial")
    return VerifiedExport(
        origin=checkpoint.origin,
        root=encode_base64(checkpoint.root),
        sealed=checkpoint.size,
        not_sealed=replay.working_state.position - checkpoint.size,
        erased=replay.erased - missing,
        missing_texts=missing,
        currencies=replay.currencies(),
        campaigns=replay.campaigns(),
    )


class _Tree:
    """The tree over the first entries, up to the size of the checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._edge = RightEdge()
        self._leaves: list[bytes] = []
        self._missing = checkpoint.size
        self._require_root()

    def add(self, entry: bytes) -> None:
        if self._missing:
            self._leaves.append(leaf_hash(entry))
            self._missing -= 1
            if not self._missing or len(self._leaves) == CHUNK_LEAVES:
                self._edge = append_leaves(self._edge, b"".join(self._leaves)).edge
                self._leaves.clear()
            self._require_root()

    def _require_root(self) -> None:
        # Checked as soon as all sealed entries are read: errors in later lines may be consequences of a changed entry.
        if not self._missing and self._edge.root != self._checkpoint.root:
            raise ExportMismatchError(
                f"the first {self._checkpoint.size:,} entries do not give the signed root: one of them was changed, "
                "or the checkpoint is of another log"
            )

    def require_whole(self) -> None:
        if self._missing:
            raise ExportMismatchError(
                f"the export ends at position {self._checkpoint.size - self._missing:,}, before the checkpoint's size "
                f"of {self._checkpoint.size:,}: events are missing, or the checkpoint was signed after the export"
            )


class _Replay:
    """Replays the log into one working state, and sums the amounts by currency."""

    def __init__(self) -> None:
        self.working_state = WorkingState(0, datetime.min.replace(tzinfo=UTC))
        self.history = LogHistory()
        self.erased = 0
        self._spent: dict[str, Decimal] = {}
        self._held: dict[str, Decimal] = {}
        # By stream, for costs without a campaign or job. The default currency is left out: most costs have it.
        self._currencies: dict[UUID, str] = {}

    def add(self, event: Recorded) -> None:
        candidate = to_candidate(event)
        before = self.working_state.entries.get(event.stream_id)
        rejudge(self.working_state, self.history, event, candidate)
        after = self.working_state.entries.get(event.stream_id)
        if event.category == "cost" and after is not None:
            currency = self._currency(candidate, after.campaign_id, after.agent_job_id)
            cost, held = (before.cost, before.held) if before else (money.ZERO, money.ZERO)
            _add(self._spent, currency, money.subtract(after.cost, cost))
            _add(self._held, currency, money.subtract(after.held, held))
        self.erased += event.text is None and event.text_commitment is not None
        self.working_state.forget_changes()

    def _currency(self, candidate: Candidate, campaign_id: UUID | None, job_id: UUID | None) -> str:
        for scope, account_id in (("job", job_id), ("campaign", campaign_id)):
            if account_id is not None and (account := self.working_state.accounts.get((scope, account_id))):
                return account.currency
        currency: str | None = getattr(candidate.payload, "currency", None)
        if currency not in (None, money.DEFAULT_CURRENCY):
            assert currency is not None
            self._currencies[candidate.stream_id] = currency
        return self._currencies.get(candidate.stream_id, money.DEFAULT_CURRENCY)

    def currencies(self) -> dict[str, Balance]:
        return {
            currency: Balance(money.plain(self._spent[currency]), money.plain(self._held[currency]))
            for currency in sorted(self._spent)
        }

    def campaigns(self) -> list[CampaignBalance]:
        return [self._campaign(account_id) for scope, account_id in self.working_state.accounts if scope == "campaign"]

    def _campaign(self, campaign_id: UUID) -> CampaignBalance:
        account = self.working_state.accounts["campaign", campaign_id]
        head = self.working_state.heads["campaign", campaign_id]
        limit = None if account.limit is None else money.plain(account.limit)
        spent, held = money.plain(account.spent), money.plain(account.held)
        return CampaignBalance(campaign_id, head.state.status, account.currency, limit, spent, held)


def _add(sums: dict[str, Decimal], currency: str, amount: Decimal) -> None:
    sums[currency] = money.add(sums.get(currency, money.ZERO), amount)
