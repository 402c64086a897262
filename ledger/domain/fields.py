"""Types of the fields of event structs: amounts, counts, times, free text, open kinds, labels."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated

import msgspec

from ledger.domain import money

Amount = Annotated[
    Decimal,
    msgspec.Meta(
        description="An amount with at most 10 digits before the decimal point. JSON strings "
        '("0.000125") and numbers are both read exactly; more than 18 decimals are rounded half-even to 18.',
        extra={"kind": "money", "minimum": money.ZERO},
    ),
]
SignedAmount = Annotated[
    Decimal,
    msgspec.Meta(description="An exact amount; may be negative.", extra={"kind": "money", "minimum": None}),
]
Fraction = Annotated[
    Decimal,
    msgspec.Meta(
        description="A fraction from 0 to 1.",
        extra={"kind": "money", "minimum": money.ZERO, "maximum": Decimal(1)},
    ),
]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
SignedCount = Annotated[int, msgspec.Meta(ge=-(10**12), le=10**12)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]

FREE_TEXT = {"kind": "text"}
"""Marks a text as free text: it is stored separately from the data so that it can be erased."""

TITLE = {"kind": "text", "is_title": True}
"""Marks a free text that shows what something is: new events must not leave it blank."""

Reason = Annotated[str, msgspec.Meta(max_length=500, extra=FREE_TEXT)]
Name = Annotated[str, msgspec.Meta(max_length=255)]
"""A name given by others, such as that of a model or a provider."""

JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra={"kind": "object"}, extra_json_schema={"type": "object"})]
"""Any JSON object; stored as sent, except for white space."""

NO_OBJECT = msgspec.Raw(b"")
"""The value of an optional `JsonObject` that is absent: msgspec has no union of raw JSON and null."""


def no_object() -> msgspec.Raw:
    """Return the default of an optional `JsonObject`."""
    return NO_OBJECT


Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$", extra={"kind": "currency"})]

KIND_PATTERN = r"^[a-z][a-z0-9_.-]{0,62}(?!\n)$"
"""Of open kinds and of label keys. In Python `$` alone also matches before a final line feed."""

_LabelKey = Annotated[str, msgspec.Meta(pattern=KIND_PATTERN)]
_LabelValue = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Labels = Annotated[dict[_LabelKey, _LabelValue], msgspec.Meta(max_length=16, extra={"kind": "labels"})]
"""Names and values by which spending is grouped and filtered; stored with sorted keys."""

TraceId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}(?!\n)$", description="As in W3C Trace Context.")]
SpanId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}(?!\n)$", description="As in W3C Trace Context.")]


PricePosition = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        description="The position of the price event that the cost was computed by. Set by the service.",
        extra_json_schema={"readOnly": True},
    ),
]


def known_values(known: type[Enum]) -> msgspec.Meta:
    """Return the constraints of an open kind: any name is accepted, the known ones are documented."""
    values = [str(member.value) for member in known]
    return msgspec.Meta(
        pattern=KIND_PATTERN,
        description=f"Known values: {', '.join(values)}. Any other is accepted too.",
        extra_json_schema={"examples": values},
    )


class Day(datetime):
    """A time that may also be sent as a date without time, which means midnight UTC."""
