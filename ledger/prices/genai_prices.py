"""The prices of the library genai-prices as `price.published`, with their history and service tiers."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import genai_prices.data
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, PriceVariant, Provider, StartDateConstraint

from ledger.domain.cost import ServiceTier
from ledger.domain.price import PricePublished, Source
from ledger.prices.genai_names import ModelNames, NameTable
from ledger.prices.genai_rates import InexpressibleError, exact_rates
from ledger.prices.left_out import LeftOut

SOURCE_NAME = "genai-prices"

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""The start of a price for which the library names no date: it has priced all earlier calls too."""

TIER_OF_CONTEXT: dict[tuple[str, str], ServiceTier] = {
    ("processing", "batch"): "batch",
    ("service_tier", "flex"): "flex",
    ("service_tier", "priority"): "priority",
}
"""By the library's context of a request: the service tier."""

BILLED_BY_MINIMUM = {("groq", "whisper-large-v3"), ("groq", "whisper-large-v3-turbo")}
"""Models for which the library charges at least 10 seconds a call."""


class Period(NamedTuple):
    """What a model costs from a time on."""

    effective_from: datetime
    price: ModelPrice


class LibraryPrices(NamedTuple):
    """All prices of the library, and what was left out."""

    prices: list[PricePublished]
    left_out: list[LeftOut]
    source: Source


def library_prices() -> LibraryPrices:
    """Read the prices that are bundled with the library; nothing is fetched."""
    source = Source(name=SOURCE_NAME, version=version(SOURCE_NAME), sha256=_digest())
    prices: list[PricePublished] = []
    left_out: list[LeftOut] = []
    providers = {provider.id: provider for provider in genai_prices.data.providers}
    for provider in providers.values():
        for item in _provider_prices(provider, providers, source):
            if isinstance(item, PricePublished):
                prices.append(item)
            else:
                left_out.append(item)
    return LibraryPrices(prices, left_out, source)


def _digest() -> str:
    return hashlib.sha256(Path(genai_prices.data.__file__).read_bytes()).hexdigest()


def _provider_prices(
    provider: Provider, providers: dict[str, Provider], source: Source
) -> Iterator[PricePublished | LeftOut]:
    """Yield the prices of a provider's models, and of those that it offers at the prices of other providers."""
    others = [providers[name] for name in provider.fallback_model_providers or () if name in providers]
    models = [*provider.models, *(model for other in others for model in other.models)]
    table = NameTable(models)
    for index, model in enumerate(models):
        is_own = index < len(provider.models)
        names = table.names_of(index)
        if names is None:
            if is_own:
                yield LeftOut("model", "its name is that of an earlier model", provider.id, model.id)
            continue
        for clause in names.left_out if is_own else ():
            yield LeftOut("name", "a pattern of names, not one name or prefix", provider.id, model.id, clause)
        yield from _model_prices(provider.id, model, names, source, is_own=is_own)


def _model_prices(
    provider: str, model: ModelInfo, names: ModelNames, source: Source, *, is_own: bool
) -> Iterator[PricePublished | LeftOut]:
    """Yield the prices of a model: all of them, or why there are none.

    Args:
        provider: The provider under whose name they are found.
        model: The model.
        names: Its names.
        source: Where the prices are from.
        is_own: Whether it is the provider's own model; the library knows no service tiers of others.
    """
    try:
        yield from _tier_prices(provider, model, "standard", _periods(provider, model), names, source)
    except InexpressibleError as error:
        if is_own or str(error) != "no price":
            yield LeftOut("model", str(error), provider, model.id)
        return
    for key, value in sorted({pair for variant in model.price_variants or () for pair in variant.when.items()}):
        variants = [each for each in model.price_variants or () if each.when == {key: value}]
        tier = TIER_OF_CONTEXT.get((key, value))
        if tier is None or not is_own:
            if is_own and any(vars(variant.prices) for variant in variants):
                yield LeftOut("tier", f"no service tier for {key} {value}", provider, model.id)
            continue
        try:
            periods = _periods(provider, model, variants, {key: value})
            yield from _tier_prices(provider, model, tier, periods, names, source)
        except InexpressibleError as error:
            yield LeftOut("tier", str(error), provider, model.id, tier)


def _periods(
    provider: str,
    model: ModelInfo,
    variants: Sequence[PriceVariant] = (),
    context: dict[str, str] | None = None,
) -> list[Period]:
    """Return the prices of a model for one context in the order of time, each only once.

    Args:
        provider: The provider.
        model: The model.
        variants: The variants of the context; before the first of them the context has no price.
        context: The request context of the library; None for the standard price.

    Raises:
        InexpressibleError: The price depends on something else than the date.
    """
    if (provider, model.id) in BILLED_BY_MINIMUM:
        raise InexpressibleError("a minimum of seconds")
    prices = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    own_starts = {_start(variant) for variant in variants}
    first = min(own_starts, default=ALWAYS)
    starts = sorted({start for start in (ALWAYS, *map(_start, prices), *own_starts) if start >= first})
    periods: list[Period] = []
    for start in starts:
        price = model.get_prices(start, context)
        if not periods or periods[-1].price != price:
            periods.append(Period(start, price))
    return periods


def _start(conditional: ConditionalPrice | PriceVariant) -> datetime:
    match conditional.constraint:
        case None:
            return ALWAYS
        case StartDateConstraint(start_date=day):
            return datetime.combine(day, time(), UTC)
    raise InexpressibleError("prices by time of day")


def _tier_prices(
    provider: str, model: ModelInfo, tier: ServiceTier, periods: list[Period], names: ModelNames, source: Source
) -> Iterator[PricePublished | LeftOut]:
    """Yield the events of one stream; all periods are converted before the first is yielded.

    Args:
        provider: The provider.
        model: The model.
        tier: The service tier of the stream.
        periods: What it costs, from when on.
        names: The names of the model.
        source: Where the prices are from.

    Raises:
        InexpressibleError: One of the periods cannot be expressed: half a history would price calls wrongly.
    """
    converted = [(period.effective_from, exact_rates(period.price)) for period in periods]
    for key, reason in {pair: None for _, exact in converted for pair in exact.left_out.items()}:
        yield LeftOut("rate", f"{key}: {reason}", provider, model.id, "" if tier == "standard" else tier)
    for effective_from, exact in converted:
        yield PricePublished(
            provider=provider,
            model=model.id,
            names=names.names or None,
            prefixes=names.prefixes or None,
            service_tier=tier,
            rates=exact.rates,
            tiers=exact.tiers,
            effective_from=effective_from,
            source=source,
        )
