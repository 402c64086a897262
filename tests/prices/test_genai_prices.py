"""The import of genai-prices: what is left out, and the history of prices and service tiers."""

from datetime import UTC, datetime

import pytest

from ledger.domain.price import PricePublished
from ledger.prices.genai_prices import ALWAYS, LibraryPrices, library_prices
from ledger.prices.left_out import by_reason

REASONS = {
    ("model", "a minimum of seconds"),
    ("model", "no counter for the tokens of cache_image_read_mtok"),
    ("model", "no counter for the tokens of input_image_mtok"),
    ("model", "no counter for the tokens of output_citation_mtok"),
    ("model", "no counter for the tokens of output_image_mtok"),
    ("model", "no counter for the tokens of output_video_mtok"),
    ("model", "no price"),
    ("model", "no rate for any counter"),
    ("model", "prices by time of day"),
    ("name", "a pattern of names, not one name or prefix"),
    ("rate", "audio_hours: not a finite decimal for one unit"),
    ("rate", "cache_audio_read_mtok: a call with both cached and audio tokens stays unpriced"),
    ("rate", "input_audio_hours: not a finite decimal for one unit"),
    ("rate", "storage_searches_kcount: no counter for its units"),
    ("tier", "no service tier for route mistral/eu"),
    ("tier", "no service tier for search_type fast"),
    ("tier", "no service tier for service_tier fast"),
    ("tier", "no service tier for speed fast"),
}


@pytest.fixture(scope="module")
def library() -> LibraryPrices:
    return library_prices()


def prices_of(library: LibraryPrices, provider: str, model: str, tier: str = "standard") -> list[PricePublished]:
    key = (provider, model, tier)
    return [price for price in library.prices if (price.provider, price.model, price.service_tier) == key]


def test_what_is_left_out_is_known(library: LibraryPrices) -> None:
    # A new release of the library may bring something that needs a decision.
    assert set(by_reason(library.left_out)) == REASONS


def test_a_model_has_its_history_from_the_beginning_on(library: LibraryPrices) -> None:
    streams: dict[object, list[datetime]] = {}
    for price in library.prices:
        streams.setdefault(price.stream_id, []).append(price.effective_from)

    assert sum(len(times) > 1 for times in streams.values()) > 100
    assert all(times == sorted(set(times)) for times in streams.values())
    standard = {price.stream_id for price in library.prices if price.service_tier == "standard"}
    assert all(streams[stream_id][0] == ALWAYS for stream_id in standard)


def test_a_service_tier_has_no_price_before_the_library_names_one(library: LibraryPrices) -> None:
    (batch,) = prices_of(library, "openai", "gpt-4o", "batch")
    (standard,) = prices_of(library, "openai", "gpt-4o")

    assert batch.effective_from > datetime(2026, 1, 1, tzinfo=UTC)
    assert batch.rates.input_tokens is not None
    assert standard.rates.input_tokens == 2 * batch.rates.input_tokens


def test_a_provider_offers_the_models_of_others_at_their_price(library: LibraryPrices) -> None:
    (azure,), (openai,) = prices_of(library, "azure", "gpt-4o"), prices_of(library, "openai", "gpt-4o")

    assert azure.rates == openai.rates
    assert not prices_of(library, "azure", "gpt-4o", "batch")


def test_the_source_names_the_data(library: LibraryPrices) -> None:
    assert {price.source for price in library.prices} == {library.source}
    assert library.source.name == "genai-prices"
    assert library.source.sha256 is not None
    assert len(library.source.sha256) == 64
