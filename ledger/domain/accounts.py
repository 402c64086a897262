"""Budget checks: the accounts of a cost's job, ancestors and campaign, checked and changed together."""

from decimal import Decimal
from uuid import UUID

from ledger.domain import money
from ledger.domain.budget_scope import budget_scope
from ledger.domain.errors import BudgetExceeded, CurrencyMismatch
from ledger.domain.event import Limit
from ledger.domain.job import JobState
from ledger.domain.references import require_job
from ledger.domain.working_state import Account, WorkingState

Scope = tuple[str, tuple[str, UUID], Account | None, Account]
"""The name of a limit ("job", "ancestor" or "campaign"), the key of its account, the account if there is one, and the
same account or a new one. The key of an ancestor is that of a job."""


def scopes_of(working_state: WorkingState, campaign_id: UUID | None, job_id: UUID | None) -> list[Scope]:
    """Find the accounts that an entry counts for.

    Args:
        working_state: Holds the accounts.
        campaign_id: The campaign that the entry counts for; None if none.
        job_id: The job that the entry counts for; None if none.

    Returns:
        The accounts: the job's, those of its ancestors from its parent up, the campaign's. A job without an account
        gets a new one, stored with the first entry of it or of a job below it.
    """
    scopes: list[Scope] = []
    if job_id is not None:
        job = require_job(working_state, job_id)
        scopes.append(_scope_of_job(working_state, "job", job_id, job))
        if job.ancestors:
            above = ((each, require_job(working_state, each)) for each in reversed(job.ancestors))
            scopes += [_scope_of_job(working_state, "ancestor", *each) for each in above]
    if campaign_id is not None:
        key = ("campaign", campaign_id)
        account = working_state.accounts[key]
        scopes.append(("campaign", key, account, account))
    return scopes


def _scope_of_job(working_state: WorkingState, name: str, job_id: UUID, job: JobState) -> Scope:
    key = ("job", job_id)
    account = working_state.accounts.get(key)
    return name, key, account, account or Account(job.currency, job.budget)


def require_currency(scopes: list[Scope], named: str | None) -> None:
    """Raise `CurrencyMismatch` unless all accounts count in one currency, and in that of the event if it names one."""
    for _, _, _, account in reversed(scopes):
        named = named or account.currency
        if named != account.currency:
            raise CurrencyMismatch(named, account.currency)


def currency_of(scopes: list[Scope], named: str | None) -> str:
    """Return the currency of an entry: that of its accounts, or else the one that it names, or else the default."""
    return scopes[0][3].currency if scopes else named or money.DEFAULT_CURRENCY


def require_room(scopes: list[Scope], amount: Decimal) -> None:
    """Raise `BudgetExceeded` if the amount, added to what is spent and held, exceeds the limit of an account."""
    failed = []
    currency = money.DEFAULT_CURRENCY
    for name, (_, scope_id), _, account in scopes:
        taken = money.add(account.spent, account.held)
        if account.limit is not None and money.add(taken, amount) > account.limit:
            spent, held = account.spent, account.held
            failed.append(budget_scope(name, scope_id, limit=account.limit, spent=spent, held=held, requested=amount))
            currency = account.currency
    if failed:
        raise BudgetExceeded(failed, currency)


def limits_of(scopes: list[Scope]) -> list[Limit]:
    """Return the limits among the accounts, with their balances; what is available is at least 0."""
    return [
        Limit(
            name,
            scope_id,
            money.plain(account.limit),
            money.plain(account.spent),
            money.plain(account.held),
            money.plain(max(money.subtract(money.subtract(account.limit, account.spent), account.held), money.ZERO)),
        )
        for name, (_, scope_id), _, account in scopes
        if account.limit is not None
    ]


def add_to_balances(working_state: WorkingState, scopes: list[Scope], spent: Decimal, held: Decimal) -> list[str]:
    """Add to the balances of accounts.

    Args:
        working_state: The new balances are put here.
        scopes: The accounts.
        spent: Added to what is spent; may be negative.
        held: Added to what is held; may be negative.

    Returns:
        The names of the scopes that exceed their limits afterwards; "ancestor" only once.
    """
    over_budget: list[str] = []
    for name, key, before, account in scopes:
        changed = Account(
            account.currency,
            account.limit,
            money.add(account.spent, spent) if spent else account.spent,
            money.add(account.held, held) if held else account.held,
        )
        working_state.replace(working_state.accounts, key, before, changed)
        if changed.is_over and name not in over_budget:
            over_budget.append(name)
    return over_budget
