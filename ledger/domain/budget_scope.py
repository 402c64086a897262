"""What a refused hold says about each budget that it does not fit."""

from decimal import Decimal
from uuid import UUID

from ledger.domain.money import ZERO, plain, subtract


def budget_scope(
    scope: str, scope_id: UUID, *, limit: Decimal, spent: Decimal, held: Decimal, requested: Decimal
) -> dict[str, str]:
    """Describe one exceeded limit for the `scopes` of `budget-exceeded`.

    Args:
        scope: "job", "ancestor" or "campaign".
        scope_id: The job or campaign.
        limit: The budget.
        spent: What is spent of it.
        held: What is held of it.
        requested: The amount of the refused hold.

    Returns:
        These amounts as strings, and `available`: the rest of the budget, at least 0.
    """
    available = max(subtract(subtract(limit, spent), held), ZERO)
    amounts = {"limit": limit, "spent": spent, "held": held, "requested": requested, "available": available}
    return {"scope": scope, "id": str(scope_id), **{name: plain(amount) for name, amount in amounts.items()}}
