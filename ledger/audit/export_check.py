"""An export proved by itself: against a signed checkpoint, and by the rules of the ledger. No database is needed.

Memory grows with the number of streams, whose states later events are judged by, not with the number of events.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.audit.export import ExportLine, at_line
from ledger.audit.merkle import leaf_hash
from ledger.audit.note import NoteError, Verifier, encode_base64, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.domain import money
from ledger.domain.errors import LedgerError
from ledger.domain.event import Candidate, Recorded
from ledger.domain.rejudge import candidate_of, restore
from ledger.domain.working_state import WorkingState

CHUNK_LEAVES = 4_096
PROGRESS_LINES = 1_000


class ExportMismatchError(LedgerError):
    """The export is not the log that the checkpoint was signed for."""


class Balance(msgspec.Struct):
    """What was spent, and what is held by open holds."""

    spent: str
    held: str


class CampaignBalance(msgspec.Struct):
    """A campaign as the log leaves it."""

    id: UUID
    status: str
    currency: str
    budget: str
    spent: str
    held: str


class Proved(msgspec.Struct):
    """What an export proves: its first `sealed` events are those the checkpoint was signed for, all keep the rules."""

    origin: str
    root: str
    sealed: int
    not_sealed: int
    erased: int
    currencies: dict[str, Balance]
    campaigns: list[CampaignBalance]


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """Read a signed checkpoint of the log that a key signs for.

    Raises:
        ExportMismatchError: it is none, or another key's, or another log's.
    """
    try:
        checkpoint = Checkpoint.parse(open_note(note, [verifier]))
    except (NoteError, CheckpointError) as error:
        raise ExportMismatchError(f"the checkpoint: {error}") from None
    if checkpoint.origin != verifier.name:
        raise ExportMismatchError(
            f"the checkpoint is of the log {checkpoint.origin}, the key signs for {verifier.name}"
        )
    return checkpoint


def verify_export(
    lines: Iterable[ExportLine], checkpoint: Checkpoint, progress: Callable[[], None] = lambda: None
) -> Proved:
    """Hold an export against a checkpoint, and replay it.

    Args:
        progress: called now and then.

    Raises:
        ExportError: a line is not as it must be, or its event could not have been recorded there.
        ExportMismatchError: the export ends too early, or its entries do not give the signed root.
    """
    tree, replay = _Tree(checkpoint), _Replay()
    for line in lines:
        # First what can be said of this line alone.
        with at_line(line):
            replay.add(line.event)
        tree.add(line.entry)
        if line.number % PROGRESS_LINES == 0:
            progress()
    tree.require_whole()
    return Proved(
        origin=checkpoint.origin,
        root=encode_base64(checkpoint.root),
        sealed=checkpoint.size,
        not_sealed=replay.working_state.position - checkpoint.size,
        erased=replay.erased,
        currencies=replay.currencies(),
        campaigns=replay.campaigns(),
    )


class _Tree:
    """The tree over the first entries, as many as the checkpoint says."""

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
        # As soon as it is known: what comes after a changed event only follows from it.
        if not self._missing and self._edge.root != self._checkpoint.root:
            raise ExportMismatchError(
                f"the first {self._checkpoint.size:,} entries do not give the signed root: one of them has been "
                "changed, or the checkpoint is of another log"
            )

    def require_whole(self) -> None:
        if self._missing:
            raise ExportMismatchError(
                f"the export ends at position {self._checkpoint.size - self._missing:,}, before the checkpoint's size "
                f"of {self._checkpoint.size:,}: the events between are missing, or the checkpoint is a later one"
            )


class _Replay:
    """The log told again into a working_state of everything."""

    def __init__(self) -> None:
        self.working_state = WorkingState(0, datetime.min.replace(tzinfo=UTC))
        self.erased = 0
        self._spent: dict[str, Decimal] = {}
        self._held: dict[str, Decimal] = {}
        # Of entries that count for no account; most are in the default currency, which is not kept.
        self._currencies: dict[UUID, str] = {}

    def add(self, told: Recorded) -> None:
        candidate = candidate_of(told)
        before = self.working_state.entries.get(told.stream_id)
        restore(self.working_state, told, candidate)
        after = self.working_state.entries.get(told.stream_id)
        if told.category == "cost" and after is not None:
            currency = self._currency(candidate, after.campaign_id, after.agent_job_id)
            cost, held = (before.cost, before.held) if before else (money.ZERO, money.ZERO)
            _move(self._spent, currency, money.subtract(after.cost, cost))
            _move(self._held, currency, money.subtract(after.held, held))
        self.erased += told.text is None and told.text_commitment is not None
        self.working_state.forget_changes()

    def _currency(self, candidate: Candidate, campaign_id: UUID | None, job_id: UUID | None) -> str:
        for key in (("job", job_id), ("campaign", campaign_id)):
            if key[1] is not None and (account := self.working_state.accounts.get((key[0], key[1]))):
                return account.currency
        named: str | None = getattr(candidate.payload, "currency", None)
        if named not in (None, money.DEFAULT_CURRENCY):
            assert named is not None
            self._currencies[candidate.stream_id] = named
        return self._currencies.get(candidate.stream_id, money.DEFAULT_CURRENCY)

    def currencies(self) -> dict[str, Balance]:
        return {
            currency: Balance(money.plain(self._spent[currency]), money.plain(self._held[currency]))
            for currency in sorted(self._spent)
        }

    def campaigns(self) -> list[CampaignBalance]:
        return [self._campaign(account_id) for scope, account_id in self.working_state.accounts if scope == "campaign"]

    def _campaign(self, campaign_id: UUID) -> CampaignBalance:
        account, head = (
            self.working_state.accounts["campaign", campaign_id],
            self.working_state.heads["campaign", campaign_id],
        )
        assert account.limit is not None
        balances = [money.plain(amount) for amount in (account.limit, account.spent, account.held)]
        return CampaignBalance(campaign_id, head.state.status, account.currency, *balances)


def _move(sums: dict[str, Decimal], currency: str, amount: Decimal) -> None:
    sums[currency] = money.add(sums.get(currency, money.ZERO), amount)
