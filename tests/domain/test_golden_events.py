"""Golden files: for each event type and schema version the stored bytes and the decoded payload.

A file is never changed and never removed: auditors hash these bytes. A new schema version gets a new file; the old ones
keep `data` and `text`, and only `reads`, the decoded payload, may follow the new struct.
"""

import json
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from ledger.domain.catalogue import CATALOGUE, decode_as_written, decode_stored
from ledger.domain.codec import EventData, dump, plans_of, time_text
from ledger.domain.fields import NO_OBJECT
from tests.domain.helpers import GOLDEN

VERSIONS = [(name, version) for name, kind in CATALOGUE.items() for version in range(1, kind.schema_version + 1)]


class Golden(NamedTuple):
    """One event as stored, and as this release decodes it."""

    name: str
    version: int
    data: str
    text: str | None
    reads: dict[str, Any]


def golden(name: str, version: int) -> list[Golden]:
    cases = json.loads((GOLDEN / f"{name}.v{version}.json").read_text())
    return [Golden(name, version, case["data"], case["text"], case["reads"]) for case in cases]


def shown(payload: EventData) -> dict[str, Any]:
    """Convert a payload to exact JSON values: amounts, ids, times and raw JSON as text."""
    return {field: _plain(getattr(payload, field)) for field in payload.__struct_fields__}


def _plain(value: Any) -> Any:
    if value == NO_OBJECT:
        return None
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {field: _plain(getattr(value, field)) for field in value.__struct_fields__}
    return str(value) if isinstance(value, Decimal | UUID) else value


ALL = [
    case
    for name, version in VERSIONS
    if (GOLDEN / f"{name}.v{version}.json").exists()
    for case in golden(name, version)
]
NAMES = [f"{case.name}.v{case.version}" for case in ALL]


def test_every_schema_version_of_every_type_has_a_golden_file() -> None:
    files = {path.name for path in GOLDEN.iterdir()}
    expected = {f"{name}.v{version}.json" for name, version in VERSIONS}

    assert expected - files == set(), "add these files to tests/domain/golden"
    assert files - expected == set(), "golden files of versions that ledger/domain does not declare"
    assert all(golden(*version) for version in VERSIONS)


@pytest.mark.parametrize("case", ALL, ids=NAMES)
def test_stored_events_decode_as_before(case: Golden) -> None:
    payload = decode_stored(case.name, case.version, case.data, case.text)

    assert shown(payload) == case.reads


@pytest.mark.parametrize("case", ALL, ids=NAMES)
def test_every_version_is_written_as_exactly_these_bytes(case: Golden) -> None:
    data, text = dump(decode_as_written(case.name, case.version, case.data, case.text))

    assert (data.decode(), text.decode() if text is not None else None) == (case.data, case.text)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_every_field_of_a_version_occurs_in_its_golden_file(name: str, version: int) -> None:
    written = [decode_as_written(name, version, case.data, case.text) for case in golden(name, version)]

    found = {field for payload in written for field, value in shown(payload).items() if value is not None}
    assert found == set(written[0].__struct_fields__), "keep a copy of the struct for the older version"


@pytest.mark.parametrize("case", [case for case in ALL if case.text], ids=[case.name for case in ALL if case.text])
def test_the_data_of_an_event_is_readable_after_its_text_is_erased(case: Golden) -> None:
    erased = shown(decode_stored(case.name, case.version, case.data, None))

    plans = plans_of(CATALOGUE[case.name].payload)
    empty = {"text": "", "object": "{}"}
    texts = {plan.name: empty[plan.kind] if plan.required else None for plan in plans if plan.is_free_text}
    assert erased == case.reads | texts
