"""The canonical form of event data, and the field types of the event structs.

A struct's fields are told apart by how they are annotated: free text (`FREE_TEXT`, `JsonObject`) is written into a JSON
object of its own, so that it can be erased; everything else is data. Both are compact JSON with the fields in the
struct's order and absent fields omitted. These bytes are stored, hashed and exported: never change how they are
written.
"""

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec

from ledger.domain import money
from ledger.domain.errors import LedgerError

NESTING_MAX = 100
"""Levels of arrays and objects in a request: far below what any JSON reader downstream can follow."""

Amount = Annotated[
    Decimal,
    msgspec.Meta(
        description='An exact amount, at most 10 digits before and 10 after the point. JSON strings ("0.000125") '
        "and numbers are read from their text.",
        extra={"kind": "money", "minimum": money.ZERO},
    ),
]
SignedAmount = Annotated[
    Decimal,
    msgspec.Meta(description="An exact amount, may be negative.", extra={"kind": "money", "minimum": None}),
]
Fraction = Annotated[
    Decimal,
    msgspec.Meta(
        description="A part of the whole, 0 to 1.",
        extra={"kind": "money", "minimum": money.ZERO, "maximum": Decimal(1)},
    ),
]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
SignedCount = Annotated[int, msgspec.Meta(ge=-(10**12), le=10**12)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


FREE_TEXT = {"kind": "text"}
"""Marks a text as free: it is kept apart from the data so that it can be erased."""

Reason = Annotated[str, msgspec.Meta(max_length=500, extra=FREE_TEXT)]
Label = Annotated[str, msgspec.Meta(max_length=100)]
JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra={"kind": "object"}, extra_json_schema={"type": "object"})]
"""Any JSON object; kept as sent but for white space."""

NO_OBJECT = msgspec.Raw(b"")
"""An optional `JsonObject` that is absent: msgspec knows no union of raw JSON and null."""


def no_object() -> msgspec.Raw:
    """The default of an optional `JsonObject`."""
    return NO_OBJECT


Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$", extra={"kind": "currency"})]


class Day(datetime):
    """A point in time that may also be sent as a bare date, meaning its midnight in UTC."""


class InvalidFieldError(LedgerError, ValueError):
    """A field breaks a rule that the JSON schema cannot say. Carries the field's name for the problem's path."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


FREE_KINDS = ("text", "object")


class FieldPlan(NamedTuple):
    """How one field is checked and written."""

    name: str
    kind: Literal["plain", "money", "time", "text", "object", "currency"]
    minimum: Decimal | None
    maximum: Decimal | None
    required: bool
    default: Any
    is_free_text: bool


class EventData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What an event says beyond its envelope. Amounts are canonical and in range once a struct exists."""

    def __post_init__(self) -> None:
        for plan in _checked_plans_of(type(self)):
            value = getattr(self, plan.name)
            if value is None:
                if plan.default is not None:
                    msgspec.structs.force_setattr(self, plan.name, plan.default)
            elif plan.kind == "money":
                msgspec.structs.force_setattr(self, plan.name, _checked_amount(plan, value))
            elif plan.kind == "time":
                msgspec.structs.force_setattr(self, plan.name, utc(plan.name, value))
            elif plan.kind == "object":
                msgspec.structs.force_setattr(self, plan.name, _checked_object(plan, value))
            elif plan.kind == "currency" and value not in money.CURRENCIES:
                raise InvalidFieldError(plan.name, f"{value!r} is not an ISO 4217 currency")
        self.check()

    def check(self) -> None:
        """Rules between fields; raises `InvalidFieldError`."""


@cache
def plans_of(struct: type[EventData]) -> tuple[FieldPlan, ...]:
    """The plans of a struct's fields, in the struct's order."""
    hints = get_type_hints(struct, include_extras=True)
    return tuple(_plan(field, hints[field.name]) for field in msgspec.structs.fields(struct))


@cache
def _checked_plans_of(struct: type[EventData]) -> tuple[FieldPlan, ...]:
    """The plans of those fields that msgspec alone cannot check."""
    return tuple(plan for plan in plans_of(struct) if plan.kind not in ("plain", "text") or plan.default is not None)


def _plan(field: msgspec.structs.FieldInfo, hint: Any) -> FieldPlan:
    kind: Any = "plain"
    bounds: dict[str, Decimal | None] = {}
    for part in (hint, *get_args(hint)):
        plain_type = get_args(part)[0] if hasattr(part, "__metadata__") else part
        if isinstance(plain_type, type) and issubclass(plain_type, datetime):
            kind = "time"
        for meta in getattr(part, "__metadata__", ()):
            if meta.extra:
                bounds = dict(meta.extra)
                kind = bounds.pop("kind")
    default = None if field.default is msgspec.NODEFAULT else field.default
    return FieldPlan(
        field.name, kind, bounds.get("minimum"), bounds.get("maximum"), field.required, default, kind in FREE_KINDS
    )


def _checked_amount(plan: FieldPlan, value: Decimal) -> Decimal:
    try:
        amount = money.canonical(value)
    except ValueError as error:
        raise InvalidFieldError(plan.name, str(error)) from None
    if plan.minimum is not None and amount < plan.minimum:
        raise InvalidFieldError(plan.name, f"must be at least {money.plain(plan.minimum)}")
    if plan.maximum is not None and amount > plan.maximum:
        raise InvalidFieldError(plan.name, f"must be at most {money.plain(plan.maximum)}")
    return amount


def _checked_object(plan: FieldPlan, value: msgspec.Raw) -> msgspec.Raw:
    raw = bytes(value)
    if raw in (b"", b"null") and not plan.required:
        return NO_OBJECT
    if not raw.startswith(b"{"):
        raise InvalidFieldError(plan.name, "must be an object")
    return msgspec.Raw(msgspec.json.format(raw, indent=-1))


def utc(field: str, value: datetime) -> datetime:
    """The same moment in UTC; raises `InvalidFieldError` where the calendar ends (year 1 or 9999)."""
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise InvalidFieldError(field, "is outside the calendar once in UTC") from None
    # The database driver writes these two as -infinity and infinity.
    if moment.replace(tzinfo=None) in (datetime.min, datetime.max):  # noqa: DTZ901
        raise InvalidFieldError(field, "is the very end of the calendar")
    # A plain datetime, whatever it was read as: `Day` is only a way of reading.
    return datetime.combine(moment.date(), moment.timetz())


def time_text(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds and `Z`."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def dump(payload: EventData) -> tuple[bytes, bytes | None]:
    """Write the canonical data and, where there is any, the canonical free text."""
    data: dict[str, Any] = {}
    free: dict[str, Any] = {}
    for plan in plans_of(type(payload)):
        value = getattr(payload, plan.name)
        if value is None:
            # content.assigned says null on purpose: a required field is written even so.
            if plan.required:
                data[plan.name] = None
        elif plan.is_free_text:
            if value != NO_OBJECT:
                free[plan.name] = value
        elif plan.kind == "money":
            data[plan.name] = money.plain(value)
        elif plan.kind == "time":
            data[plan.name] = time_text(value)
        else:
            data[plan.name] = value
    return msgspec.json.encode(data), (msgspec.json.encode(free) if free else None)


def merge(data: bytes, free: bytes | None) -> bytes:
    """Put data and free text back into one JSON object, as it was sent."""
    if free is None:
        return data
    return free if data == b"{}" else data[:-1] + b"," + free[1:]


def decode_hook(target: type, value: Any) -> Any:
    """Read the types msgspec does not know: `Day`."""
    if target is Day:
        return _read_day(value)
    raise NotImplementedError(target)


def _read_day(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("Expected `str`")
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return Day.combine(date.fromisoformat(value), time(tzinfo=UTC))
        return _as_day(msgspec.convert(value, Instant))
    except (ValueError, OverflowError):
        raise ValueError("Expected an RFC 3339 time with its zone, or a date such as 2025-01-31") from None


def _as_day(moment: datetime) -> Day:
    return Day.combine(moment.date(), moment.timetz())


def check_text(body: bytes) -> None:
    """Refuse what JSON allows but no database text can hold, and nesting that readers cannot follow.

    Raises:
        UnicodeDecodeError: not UTF-8.
        msgspec.DecodeError: an escaped lone surrogate, or a number with thousands of digits.
        RecursionError: nested deeper than `NESTING_MAX`.
        InvalidFieldError: a NUL character in a text.
    """
    if not body.isascii():
        body.decode()
    if body.count(b"{") + body.count(b"[") > NESTING_MAX and _nesting(body) > NESTING_MAX:
        raise RecursionError(f"nested deeper than {NESTING_MAX} levels")
    if b"\\u0000" in body and _NUL.search(body):
        raise InvalidFieldError("", "a text must not contain NUL (U+0000)")
    # Rare in compact JSON from agents: only then is the whole value read to be sure.
    if b"\\u" in body or _MANY_DIGITS.search(body):
        _ANY_JSON.decode(body)


_ANY_JSON = msgspec.json.Decoder(float_hook=str)
# A backslash before u0000 that is not itself escaped.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_MANY_DIGITS = re.compile(rb"(?<![0-9])[0-9]{1000}")
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def _nesting(body: bytes) -> int:
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest
