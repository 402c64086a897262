"""Canonical JSON of event data: how the fields of the event structs are checked and written.

Annotations separate two kinds of fields: free text (`FREE_TEXT`, `JsonObject`) is written into a second JSON object, so
that it can be erased; everything else is data. Both are compact JSON, with the fields in the order of the struct and
absent fields omitted. These bytes are stored, hashed and exported: never change how they are written.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, partial
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec

from ledger.domain import money
from ledger.domain.errors import LedgerError
from ledger.domain.fields import NO_OBJECT, Day, Instant


class InvalidFieldError(LedgerError, ValueError):
    """A field breaks a rule that the JSON schema cannot express; `field` names it in the problem document."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


FREE_KINDS = ("text", "object")


class FieldPlan(NamedTuple):
    """How one field of an event struct is checked and written."""

    name: str
    kind: Literal["plain", "money", "time", "text", "object", "currency", "labels", "nested"]
    minimum: Decimal | None
    maximum: Decimal | None
    required: bool
    default: Any
    is_free_text: bool
    is_title: bool


class EventData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The base of all event structs. Amounts in an instance are canonical and within their range."""

    def __post_init__(self) -> None:
        for name, default, checked in _checks_of(type(self)):
            value = getattr(self, name)
            result = default if value is None else checked(value)
            if result is not value:
                msgspec.structs.force_setattr(self, name, result)
        self.check()

    def check(self) -> None:
        """Check rules that concern several fields; raise `InvalidFieldError`."""


@cache
def plans_of(struct: type[EventData]) -> tuple[FieldPlan, ...]:
    """Return the plans of the fields of a struct, in the order of the struct."""
    hints = get_type_hints(struct, include_extras=True)
    return tuple(_plan(field, hints[field.name]) for field in msgspec.structs.fields(struct))


@cache
def _checks_of(struct: type[EventData]) -> tuple[tuple[str, Any, Callable[[Any], Any]], ...]:
    """Return name, default and check of each field that msgspec alone cannot check; a check returns the new value."""
    return tuple(
        (plan.name, None if plan.default is msgspec.UNSET else plan.default, _check_of(plan))
        for plan in plans_of(struct)
        if plan.kind not in ("plain", "text", "nested") or plan.default is not None
    )


def _check_of(plan: FieldPlan) -> Callable[[Any], Any]:
    check = partial(_CHECKS[plan.kind], plan)
    if plan.default is not msgspec.UNSET:
        return check
    return lambda value: value if value is msgspec.UNSET else check(value)


def _plan(field: msgspec.structs.FieldInfo, hint: Any) -> FieldPlan:
    kind: Any = "plain"
    extra: dict[str, Any] = {}
    for part in (hint, *get_args(hint)):
        plain_type = get_args(part)[0] if hasattr(part, "__metadata__") else part
        if any(hasattr(inner, "as_json") for inner in (plain_type, *get_args(plain_type))):
            # A struct, or a list of structs, with amounts: written by its own method.
            kind = "nested"
        if isinstance(plain_type, type) and issubclass(plain_type, datetime):
            kind = "time"
        for meta in getattr(part, "__metadata__", ()):
            if meta.extra:
                extra = meta.extra
                kind = extra["kind"]
    default = None if field.default is msgspec.NODEFAULT else field.default
    return FieldPlan(
        field.name,
        kind,
        extra.get("minimum"),
        extra.get("maximum"),
        field.required,
        default,
        kind in FREE_KINDS,
        extra.get("is_title", False),
    )


def check_field(plan: FieldPlan, value: Any) -> None:
    """Raise `InvalidFieldError` if the value of one field breaks a rule that the JSON schema cannot express."""
    if value is not None:
        _CHECKS[plan.kind](plan, value)


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


def _checked_currency(plan: FieldPlan, value: str) -> str:
    if value not in money.CURRENCIES:
        raise InvalidFieldError(plan.name, f"{value!r} is not an ISO 4217 currency")
    return value


def _checked_labels(plan: FieldPlan, value: dict[str, str]) -> dict[str, str] | None:
    return {key: value[key] for key in sorted(value)} or None


_CHECKS: dict[str, Callable[[FieldPlan, Any], Any]] = {
    "plain": lambda plan, value: value,
    "text": lambda plan, value: value,
    "money": _checked_amount,
    "time": lambda plan, value: utc(plan.name, value),
    "object": _checked_object,
    "currency": _checked_currency,
    "labels": _checked_labels,
    "nested": lambda plan, value: value,
}


def utc(field: str, value: datetime) -> datetime:
    """Convert a time to UTC; raise `InvalidFieldError` at the limits of the calendar (years 1 and 9999)."""
    if value.tzinfo is UTC and type(value) is datetime and 1 < value.year < 9999:
        # The usual case: nothing to convert.
        return value
    try:
        time_utc = value.astimezone(UTC)
    except OverflowError:
        raise InvalidFieldError(field, "is outside the calendar (years 1 to 9999) when converted to UTC") from None
    # asyncpg writes these two as -infinity and infinity.
    if time_utc.replace(tzinfo=None) in (datetime.min, datetime.max):  # noqa: DTZ901
        raise InvalidFieldError(field, "is the first or last instant of the calendar, which cannot be stored")
    # A plain datetime: `Day` only decides how a value is read.
    return datetime.combine(time_utc.date(), time_utc.timetz())


def time_text(value: datetime) -> str:
    """Write a time as RFC 3339 in UTC, with microseconds and `Z`."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def dump(payload: EventData) -> tuple[bytes, bytes | None]:
    """Return the canonical data and the canonical free text; None if the event has no free text."""
    layout = _layout_of(type(payload))
    data = list(msgspec.structs.astuple(payload))
    free = None
    for index, kind in layout.converted:
        value = data[index]
        if value is None or value is msgspec.UNSET:
            continue
        if kind == "money":
            data[index] = money.plain(value)
        elif kind == "time":
            data[index] = time_text(value)
        elif kind == "nested":
            data[index] = [each.as_json() for each in value] if isinstance(value, list) else value.as_json()
        else:
            # Fields that are UNSET are not written.
            data[index] = msgspec.UNSET
            if value != NO_OBJECT:
                free = free or [msgspec.UNSET] * len(data)
                free[index] = value
    return msgspec.json.encode(layout.struct(*data)), (msgspec.json.encode(layout.struct(*free)) if free else None)


class _Layout(NamedTuple):
    """How the canonical JSON of an event struct is written: by a struct of the same fields, without their types.

    Fields that are required or UNSET by default are written even if they are null (in content.assigned null means "no
    campaign"), the others are omitted then. `converted` contains index and kind of the fields that are not written as
    they are.
    """

    struct: type[msgspec.Struct]
    converted: tuple[tuple[int, str], ...]


_WRITTEN_AS_THEY_ARE = ("plain", "currency", "labels")


@cache
def _layout_of(struct: type[EventData]) -> _Layout:
    plans = plans_of(struct)
    unset = (plan.required or plan.default is msgspec.UNSET for plan in plans)
    fields = [
        (plan.name, Any, msgspec.UNSET if is_unset else None) for plan, is_unset in zip(plans, unset, strict=True)
    ]
    converted = ((index, plan.kind) for index, plan in enumerate(plans) if plan.kind not in _WRITTEN_AS_THEY_ARE)
    return _Layout(msgspec.defstruct(struct.__name__, fields, omit_defaults=True, gc=False), tuple(converted))


def merge(data: bytes, free: bytes | None) -> bytes:
    """Join data and free text into one JSON object, as it was sent."""
    if free is None:
        return data
    return free if data == b"{}" else data[:-1] + b"," + free[1:]


def decode_hook(target: type, value: Any) -> Any:
    """Decode the one type that msgspec does not know, `Day` (a `dec_hook`)."""
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
        raise ValueError("Expected an RFC 3339 time with a time zone, or a date such as 2025-01-31") from None


def _as_day(value: datetime) -> Day:
    return Day.combine(value.date(), value.timetz())
