"""`Original`: the amount of a foreign bill, before it was converted to the currency of the entry."""

from decimal import Decimal

import msgspec

from ledger.domain import money
from ledger.domain.codec import InvalidFieldError
from ledger.domain.fields import Amount, Currency

AMOUNTS = ("amount", "rate")


class Original(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What a foreign bill said."""

    amount: Amount
    currency: Currency
    rate: Decimal

    def __post_init__(self) -> None:
        if self.currency not in money.CURRENCIES:
            raise InvalidFieldError("original", f"{self.currency!r} is not an ISO 4217 currency")
        for name in AMOUNTS:
            try:
                amount = money.canonical(getattr(self, name))
            except ValueError as error:
                raise InvalidFieldError("original", f"{name} {error}") from None
            msgspec.structs.force_setattr(self, name, amount)
        if self.amount < 0 or self.rate <= 0:
            raise InvalidFieldError("original", "the rate must be more than 0, and the amount at least 0")

    def as_json(self) -> dict[str, str]:
        """Return the canonical form: amounts in plain notation."""
        return {"amount": money.plain(self.amount), "currency": self.currency, "rate": money.plain(self.rate)}
