"""Builders of events as clients send them."""

import uuid
from typing import Any

from ledger.domain.price import price_stream


def event(type_: str, data: dict[str, Any] | None = None, **envelope: Any) -> dict[str, Any]:
    """Return an event with a new id."""
    return {"type": type_, "id": str(uuid.uuid4()), "data": data or {}, **envelope}


def campaign(budget: str | None = "100", **data: Any) -> dict[str, Any]:
    """Return an event that creates a campaign."""
    return event("campaign.created", {"name": "A campaign", "budget": budget, "start_date": "2025-01-01", **data})


def job(campaign_id: str | None = None, **data: Any) -> dict[str, Any]:
    """Return an event that queues a job."""
    reference = {"campaign_id": campaign_id} if campaign_id else {}
    return event("job.queued", {"agent_type": "analyst", "input_data": {}, **reference, **data})


def content(**data: Any) -> dict[str, Any]:
    """Return an event that creates a content asset."""
    return event("content.created", {"title": "A title", "content": "Text", "content_type": "blog", **data})


def cost(amount: str = "1", **data: Any) -> dict[str, Any]:
    """Return an event that records a cost."""
    return event("cost.recorded", {"resource_type": "llm_api", "cost": amount, **data})


def credit(amount: str = "1", **data: Any) -> dict[str, Any]:
    """Return an event that credits an amount."""
    return event("cost.credited", {"resource_type": "llm_api", "amount": amount, "reason": "A refund", **data})


def reserve(amount: str = "1", **data: Any) -> dict[str, Any]:
    """Return an event that reserves an amount."""
    return event("cost.reserved", {"resource_type": "llm_api", "amount": amount, **data})


def price(model: str | None = None, rate: str = "2", **data: Any) -> dict[str, Any]:
    """Return an event that publishes a price of a model, of a new one if none is named."""
    return event(
        "price.published",
        {
            "provider": "openai",
            "model": model or f"model-{uuid.uuid4()}",
            "rates": {"input_tokens": rate, "output_tokens": "8"},
            "effective_from": "2025-01-01T00:00:00Z",
            "source": {"name": "test", "version": "1"},
            **data,
        },
    )


def follow(opened: dict[str, Any], type_: str, data: dict[str, Any] | None = None, **envelope: Any) -> dict[str, Any]:
    """Return a later event of the stream that `opened` opened."""
    opened_stream = opened["id"]
    if opened["type"] == "price.published":
        opened_stream = str(price_stream(opened["data"]["provider"], opened["data"]["model"], None, None))
    return event(type_, data, stream_id=opened_stream, **envelope)
