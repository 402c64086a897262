"""Prices of models: `price.*` event types with their data, and the stream that a price belongs to.

A price is what a provider charges for each counter of a call's usage, in one currency and for one service tier, from a
time on. Its stream has the earlier and the later prices of the same model.
"""

from decimal import Decimal
from typing import Annotated
from uuid import UUID, uuid5

import msgspec

from ledger.domain import money
from ledger.domain.codec import EventData, InvalidFieldError
from ledger.domain.cost import ServiceTier
from ledger.domain.event_type import EventType
from ledger.domain.fields import Amount, Count, Currency, Instant, Reason
from ledger.domain.lifecycle import Transition
from ledger.domain.usage import COUNTERS

_NAMESPACE = UUID("5d0a6f0e-41c7-5b8c-9c35-1f2f6c1f9d77")
"""Namespace of the ids of price streams. Never change it: a price that is recorded already must be found."""

DEFAULT_TIER: ServiceTier = "standard"

PER_DEFAULT = 1_000_000
"""Prices of tokens are usually given for a million of them."""

ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
ShortName = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
UnitsOfRate = Annotated[int, msgspec.Meta(ge=1, le=10**12, description="The number of units of a rate: a power of 10.")]


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What is charged for `per` units of each counter.

    `input_tokens` is the rate of those that are neither read from nor written to a cache. A counter without a rate is
    charged like the counter that includes it: cached and audio tokens as input, reasoning as output.
    """

    input_tokens: Amount | None = None
    output_tokens: Amount | None = None
    cache_read_tokens: Amount | None = None
    cache_write_tokens: Amount | None = None
    cache_write_1h_tokens: Amount | None = None
    reasoning_tokens: Amount | None = None
    input_audio_tokens: Amount | None = None
    output_audio_tokens: Amount | None = None
    images: Amount | None = None
    seconds: Amount | None = None
    characters: Amount | None = None
    searches: Amount | None = None
    requests: Amount | None = None

    def __post_init__(self) -> None:
        for name in COUNTERS:
            rate: Decimal | None = getattr(self, name)
            if rate is not None:
                msgspec.structs.force_setattr(self, name, _checked_rate(name, rate))
        if not self.as_json():
            raise InvalidFieldError("rates", "at least one rate is required")

    def as_json(self) -> dict[str, str]:
        """Return the canonical form: the rates that are set, in plain notation."""
        rates = ((name, getattr(self, name)) for name in COUNTERS)
        return {name: money.plain(rate) for name, rate in rates if rate is not None}


def _checked_rate(counter: str, rate: Decimal) -> Decimal:
    try:
        rounded = money.canonical(rate)
    except ValueError as error:
        raise InvalidFieldError("rates", f"{counter} {error}") from None
    if rate < 0:
        raise InvalidFieldError("rates", f"{counter} must be at least 0")
    if rate and not rounded:
        raise InvalidFieldError(
            "rates", f"{counter} is too small for {money.DECIMALS_MAX} decimals: choose a larger `per`"
        )
    return rounded


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Rates of calls with more than `above_input_tokens`; they apply to the whole call, and replace those they name."""

    above_input_tokens: Count
    rates: Rates

    def as_json(self) -> dict[str, int | dict[str, str]]:
        """Return the canonical form."""
        return {"above_input_tokens": self.above_input_tokens, "rates": self.rates.as_json()}


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Where a price was taken from; `sha256` is the digest of that file."""

    name: ShortName
    version: ShortName
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")] | None = None


class PricePublished(EventData, frozen=True, kw_only=True):
    """A model has this price from `effective_from` on, until the next price of its stream.

    `names` are further names of the model; `prefixes` are beginnings of such names, as of dated versions.
    """

    provider: ModelName
    model: ModelName
    names: Annotated[list[ModelName], msgspec.Meta(max_length=100)] | None = None
    prefixes: Annotated[list[ModelName], msgspec.Meta(max_length=20)] | None = None
    service_tier: ServiceTier | None = DEFAULT_TIER
    currency: Currency | None = money.DEFAULT_CURRENCY
    per: UnitsOfRate | None = PER_DEFAULT
    rates: Rates
    tiers: Annotated[list[Tier], msgspec.Meta(max_length=10)] | None = None
    effective_from: Instant
    source: Source

    def check(self) -> None:
        if str(self.per).rstrip("0") != "1":
            raise InvalidFieldError("per", "must be a power of 10, such as 1000000")
        above = [tier.above_input_tokens for tier in self.tiers or ()]
        if above != sorted(set(above)):
            raise InvalidFieldError("tiers", "above_input_tokens must rise from each tier to the next")

    @property
    def stream_id(self) -> UUID:
        """The stream of all prices of this model, service tier and currency."""
        return price_stream(self.provider, self.model, self.service_tier, self.currency)


class PriceWithdrawn(EventData, frozen=True, kw_only=True):
    """The model has no price from `effective_from` on, until the next price of its stream.

    There must be a price at that time. Later prices of the stream stay, and are withdrawn separately.
    """

    effective_from: Instant
    reason: Reason | None = None


class PriceState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The decision state of a price stream: `published` or `withdrawn`, as its last event says."""

    status: str


def price_stream(provider: str, model: str, service_tier: str | None, currency: str | None) -> UUID:
    """Return the id of the stream of a model's prices.

    Args:
        provider: The provider, such as `openai`.
        model: The name of the model.
        service_tier: The provider's class of service; None is `standard`.
        currency: The ISO 4217 code; None is USD.

    Returns:
        The same id for the same four values, in every ledger.
    """
    key = [provider, model, service_tier or DEFAULT_TIER, currency or money.DEFAULT_CURRENCY]
    return uuid5(_NAMESPACE, msgspec.json.encode(key).decode())


EVENTS = (
    EventType(
        "price.published", PricePublished, Transition(("published", "withdrawn"), "published"), names_stream=True
    ),
    EventType("price.withdrawn", PriceWithdrawn, Transition(("published",), "withdrawn")),
)
