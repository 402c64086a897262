"""Random usages, as the ledger and as genai-prices count them, and the library's cost of a call."""

import random
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache

import genai_prices.data
from genai_prices import Usage as LibraryUsage
from genai_prices.types import ModelInfo, Provider

from ledger.domain.price import PricePublished
from ledger.domain.usage import Usage

CONTEXTS = {
    "standard": None,
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
LIBRARY_COUNTERS = {
    "reasoning_tokens": ("output_reasoning_tokens",),
    "seconds": ("audio_seconds", "input_audio_seconds"),
    "characters": ("input_characters",),
    "searches": ("web_searches",),
}


@cache
def providers() -> dict[str, Provider]:
    """Return the library's providers by id."""
    return {provider.id: provider for provider in genai_prices.data.providers}


def library_model(price: PricePublished, name: str) -> ModelInfo | None:
    """Return the model that the library finds at a provider by a name."""
    return providers()[price.provider].find_model(name, all_providers=list(providers().values()))


def model_of(price: PricePublished) -> ModelInfo:
    """Return the library's model of an imported price."""
    own = providers()[price.provider]
    sources = [own, *(providers()[name] for name in own.fallback_model_providers or ())]
    return next(model for source in sources for model in source.models if model.id == price.model)


def random_usage(draw: random.Random, price: PricePublished) -> Usage:
    """Draw what a call used, of all that the price can charge."""
    rates = price.rates.as_json()
    thresholds = [tier.above_input_tokens for tier in price.tiers or ()]
    parts = [draw.choice((0, 1, 999, draw.randrange(10**4), draw.randrange(10**7))) for _ in range(7)]
    if thresholds and draw.random() < 0.5:
        # At a threshold, or one above it.
        parts[:4] = [draw.choice(thresholds) + draw.randrange(2), 0, 0, 0]
    fresh, read, write, audio, answer, reasoning, spoken = parts
    audio = audio if "input_audio_tokens" in rates else 0
    spoken = spoken if "output_audio_tokens" in rates else 0
    if audio and rates.keys() & {"cache_read_tokens", "cache_write_tokens"}:
        read = write = 0
    if "input_tokens" not in rates:
        fresh = read = write = audio = 0
    if "output_tokens" not in rates:
        answer = reasoning = spoken = 0
    # Tokens may be in two parts, unless both have a rate of their own.
    shared = draw.randrange(min(audio, read + write) + 1)
    spoken_reasoning = 0 if "reasoning_tokens" in rates else draw.randrange(min(spoken, reasoning) + 1)
    return Usage(
        input_tokens=fresh + read + write + audio - shared,
        output_tokens=answer + reasoning + spoken - spoken_reasoning,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=draw.randrange(write + 1),
        input_audio_tokens=audio,
        output_audio_tokens=spoken,
        reasoning_tokens=reasoning,
        **{name: draw.randrange(5000) for name in ("seconds", "characters", "searches") if name in rates},
    )


def library_usage(usage: Usage) -> LibraryUsage:
    """Return the usage with the library's names."""
    counts: dict[str, int] = {"cache_audio_read_tokens": 0}
    for name in usage.__struct_fields__:
        value = getattr(usage, name)
        for library_name in LIBRARY_COUNTERS.get(name, (name,)):
            if value is not None:
                counts[library_name] = value
    return LibraryUsage(**counts)


def library_cost(price: PricePublished, usage: Usage, at: datetime) -> Decimal:
    """Return the cost that the library computes, with more digits than any of them has, rounded to 18 decimals."""
    with localcontext() as context:
        context.prec = 60
        model, provider = model_of(price), providers()[price.provider]
        priced = model.calc_price(
            library_usage(usage),
            provider,
            genai_request_timestamp=at,
            price_context=CONTEXTS[price.service_tier or "standard"],
        )
        return priced.total_price.quantize(Decimal("1e-18"), ROUND_HALF_EVEN)


def dates_of(prices: list[PricePublished]) -> list[datetime]:
    """Return three dates of one stream: one before its last change of price, the time of that change, and today."""
    starts = sorted(price.effective_from for price in prices)
    before = starts[-2] if len(starts) > 1 else starts[-1]
    return [before, starts[-1], datetime(2026, 11, 27, tzinfo=UTC)]
