"""Balances: the limits a cost counts for, moved together and judged together."""

from decimal import Decimal
from uuid import UUID

from ledger.domain import money
from ledger.domain.errors import BudgetExceeded, CurrencyMismatch, budget_scope
from ledger.domain.references import live_job
from ledger.domain.working_state import Account, WorkingState

Scope = tuple[tuple[str, UUID], Account]


def scopes_of(working_state: WorkingState, campaign_id: UUID | None, job_id: UUID | None) -> list[Scope]:
    """The accounts an entry counts for, the job's first. A job's comes into being with its first entry."""
    scopes: list[Scope] = []
    if job_id is not None:
        key = ("job", job_id)
        account = working_state.accounts.get(key)
        if account is None:
            state = live_job(working_state, job_id)
            account = Account(state.currency, state.budget)
        scopes.append((key, account))
    if campaign_id is not None:
        key = ("campaign", campaign_id)
        scopes.append((key, working_state.accounts[key]))
    return scopes


def require_currency(scopes: list[Scope], named: str | None) -> None:
    """Raise `CurrencyMismatch` where the accounts do not count in one currency, that of the event if it names one."""
    for _, account in reversed(scopes):
        named = named or account.currency
        if named != account.currency:
            raise CurrencyMismatch(named, account.currency)


def require_room(scopes: list[Scope], amount: Decimal) -> None:
    """Raise `BudgetExceeded` where a limit does not hold the amount beside what is spent and held."""
    failed = []
    currency = money.DEFAULT_CURRENCY
    for (scope, _), account in scopes:
        taken = money.add(account.spent, account.held)
        if account.limit is not None and money.add(taken, amount) > account.limit:
            failed.append(budget_scope(scope, account.limit, account.spent, account.held, amount))
            currency = account.currency
    if failed:
        raise BudgetExceeded(failed, currency)


def move(working_state: WorkingState, scopes: list[Scope], spent: Decimal, held: Decimal) -> list[str]:
    """Move the balances; returns the scopes that are over their limit then."""
    over = []
    for key, account in scopes:
        moved = Account(
            account.currency,
            account.limit,
            money.add(account.spent, spent) if spent else account.spent,
            money.add(account.held, held) if held else account.held,
        )
        working_state.put(working_state.accounts, key, moved)
        if moved.is_over:
            over.append(key[0])
    return over
