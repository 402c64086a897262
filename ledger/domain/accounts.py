"""Balances: the limits a cost counts for, moved together and judged together."""

from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.domain import money
from ledger.domain.book import Account, Book
from ledger.domain.errors import BudgetExceeded, budget_scope
from ledger.domain.references import live_job


def _scopes(book: Book, campaign_id: UUID | None, job_id: UUID | None) -> list[tuple[tuple[str, UUID], Account]]:
    """The accounts an entry counts for, the job's first. A job's comes into being with its first entry."""
    accounts = []
    if job_id is not None:
        account = book.accounts.get(("job", job_id))
        if account is None:
            state = live_job(book, job_id)
            account = Account(state.currency, state.budget)
        accounts.append((("job", job_id), account))
    if campaign_id is not None:
        accounts.append((("campaign", campaign_id), book.accounts[("campaign", campaign_id)]))
    return accounts


def require_room(book: Book, amount: Decimal, campaign_id: UUID | None, job_id: UUID | None) -> None:
    failed = []
    currency = money.DEFAULT_CURRENCY
    for (scope, _), account in _scopes(book, campaign_id, job_id):
        taken = money.add(account.spent, account.held)
        if account.limit is not None and money.add(taken, amount) > account.limit:
            failed.append(budget_scope(scope, account.limit, account.spent, account.held, amount))
            currency = account.currency
    if failed:
        raise BudgetExceeded(failed, currency)


def move(book: Book, campaign_id: UUID | None, job_id: UUID | None, spent: Decimal, held: Decimal) -> None:
    for key, account in _scopes(book, campaign_id, job_id):
        moved = msgspec.structs.replace(
            account, spent=money.add(account.spent, spent), held=money.add(account.held, held)
        )
        book.put(book.accounts, key, moved)


def over_budget(book: Book, campaign_id: UUID | None, job_id: UUID | None) -> list[str] | None:
    over = [scope for (scope, _), account in _scopes(book, campaign_id, job_id) if account.is_over]
    return over or None
