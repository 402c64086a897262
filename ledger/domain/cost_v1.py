"""Version 1 of the `cost.*` event types: the structs that the first release wrote."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec

from ledger.domain.codec import EventData
from ledger.domain.fields import FREE_TEXT, Amount, Currency


class CostReservedV1(EventData, frozen=True, kw_only=True):
    """`cost.reserved` as the first release wrote it."""

    resource_type: Literal[
        "openai_api", "web_search", "file_search", "image_generation", "embedding", "llm_api", "media", "other"
    ]
    amount: Amount
    currency: Currency | None = None
    expires_in: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = 900
    model_used: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    provider: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    description: Annotated[str, msgspec.Meta(max_length=500, extra=FREE_TEXT)] | None = None
    agent_job_id: UUID | None = None
    campaign_id: UUID | None = None
