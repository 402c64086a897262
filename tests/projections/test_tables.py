"""The descriptors of the read models agree with rows, tables, and the free text of the event types.

Which columns an event's free text feeds is not listed anywhere: each event is folded twice, with one text changed, and
the columns that differ are the ones.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from ledger.domain.catalogue import CATALOGUE, EventType
from ledger.domain.codec import FieldPlan, plans_of
from ledger.log.read import StoredEvent
from projections.tables import READ_MODELS, READ_MODELS_BY_CATEGORY, REFERENCED_FIRST, ReadModel
from tests.domain.test_golden_events import golden
from tests.projections.helpers import NOON, folded

STREAM_ID = UUID(int=1)

WITH_FREE_TEXT = [
    pytest.param(event_type, plan, id=f"{event_type.name}.{plan.name}")
    for event_type in CATALOGUE.values()
    if event_type.category in READ_MODELS_BY_CATEGORY
    for plan in plans_of(event_type.payload)
    if plan.is_free_text
]
"""Every free-text field of every event type whose streams have rows."""


class Fed(NamedTuple):
    """A column that depends on a free text, and whether it is in the row of the text's own stream."""

    model: ReadModel[Any]
    column: str
    is_own_row: bool


def stored(event_type: EventType, case: int, version: int, texts: dict[str, Any]) -> StoredEvent:
    """An event with the data of a golden file, and with these texts in place of the file's."""
    cases = golden(event_type.name, event_type.schema_version)
    return StoredEvent(
        position=version,
        category=event_type.category,
        stream_id=STREAM_ID,
        version=version,
        id=UUID(int=1 + version),
        type=event_type.name,
        schema_version=event_type.schema_version,
        occurred_at=NOON + timedelta(seconds=version),
        recorded_at=NOON + timedelta(seconds=version),
        actor="local",
        campaign_id=STREAM_ID if event_type.category == "campaign" else None,
        agent_job_id=STREAM_ID if event_type.category == "job" else None,
        correlation_id=None,
        causation_id=None,
        data=cases[case % len(cases)].data,
        text=json.dumps(texts) if texts else None,
        text_commitment=None,
    )


def text(plan: FieldPlan, words: str) -> Any:
    return words if plan.kind == "text" else {"words": words}


def texts_of(event_type: EventType, changed: FieldPlan | None = None) -> dict[str, Any]:
    """A text for every free-text field; the text of the changed field differs."""
    plans = [plan for plan in plans_of(event_type.payload) if plan.is_free_text]
    return {plan.name: text(plan, "another text" if plan == changed else "a text") for plan in plans}


def openings(category: str) -> list[StoredEvent]:
    """Return the events that open a row of a category; a denied hold opens a stream, but no row."""
    types = [kind for kind in CATALOGUE.values() if kind.category == category]
    return [stored(kind, 0, 1, texts_of(kind)) for kind in types if _opens(kind)]


def _opens(kind: EventType) -> bool:
    return (kind.opens_stream or kind.names_stream) and not kind.denies_hold


def histories(event_type: EventType, changed: FieldPlan | None) -> Iterator[list[StoredEvent]]:
    """Streams that end with an event of this type: after each type that may open them, with each golden data."""
    for case in range(len(golden(event_type.name, event_type.schema_version))):
        if event_type.opens_stream:
            yield [stored(event_type, case, 1, texts_of(event_type, changed))]
            continue
        for opening in openings(event_type.category):
            yield [opening, stored(event_type, case, 2, texts_of(event_type, changed))]


def fed_by(event_type: EventType, plan: FieldPlan) -> set[Fed]:
    """The columns that differ if this text differs."""
    fed = set()
    for one, other in zip(histories(event_type, None), histories(event_type, plan), strict=True):
        before, after = folded(one), folded(other)
        for model in READ_MODELS:
            for row_id, row in before[model.name].items():
                changed = after[model.name][row_id]
                fed |= {Fed(model, column, row_id == STREAM_ID) for column in row if row[column] != changed[column]}
    return fed


@pytest.mark.parametrize(("event_type", "plan"), WITH_FREE_TEXT)
def test_every_column_that_free_text_is_folded_into_is_erasable(event_type: EventType, plan: FieldPlan) -> None:
    text_name = f"{event_type.name}.{plan.name}"

    for model, column, is_own_row in fed_by(event_type, plan):
        assert column in model.free_text_columns, (
            f"{model.name}.{column} depends on {text_name}, which is free text, but no erasure would clear it: "
            f"declare the column with info=FREE_TEXT in projections/models/{model.name}.py"
        )
        assert is_own_row, f"{model.name}.{column} is not in the row of {text_name}'s stream: no erasure reaches it"


def test_every_column_declared_as_free_text_depends_on_some_text() -> None:
    fed = {f"{model.name}.{column}" for each in WITH_FREE_TEXT for model, column, _ in fed_by(*each.values)}
    declared = {f"{model.name}.{column}" for model in READ_MODELS for column in model.free_text_columns}

    assert declared - fed == set(), "columns declared as free text into which no event's free text is folded"


def streams_before(event_type: EventType) -> Iterator[list[StoredEvent]]:
    """Yield streams in which an event of this type is possible, one for each type that leads to such a status."""
    if event_type.opens_stream or event_type.names_stream:
        yield []
    for earlier in CATALOGUE.values():
        if earlier.category == event_type.category and earlier.transition.to in event_type.transition.allowed_from:
            opening = [] if earlier.opens_stream or earlier.names_stream else openings(earlier.category)[:1]
            yield [*opening, stored(earlier, 0, len(opening) + 1, texts_of(earlier))]


def rows_after(events: list[StoredEvent], model: ReadModel[Any]) -> list[dict[str, Any]]:
    """Return the rows of the stream, without the columns that every event changes."""
    rows = [row for row in folded(events)[model.name].values() if row[model.stream_column] == STREAM_ID]
    return [{column: row[column] for column in row.keys() - {"updated_at", "position"}} for row in rows]


@pytest.mark.parametrize(
    "event_type",
    [kind for kind in CATALOGUE.values() if kind.category in READ_MODELS_BY_CATEGORY and not kind.denies_hold],
    ids=lambda event_type: event_type.name,
)
def test_every_event_type_changes_its_row(event_type: EventType) -> None:
    model = READ_MODELS_BY_CATEGORY[event_type.category]
    texts = [None, *(plan for plan in plans_of(event_type.payload) if plan.is_free_text)]
    cases = range(len(golden(event_type.name, event_type.schema_version)))

    assert any(
        rows_after([*before, stored(event_type, case, len(before) + 1, texts_of(event_type, changed))], model)
        != rows_after(before, model)
        for before, case, changed in product(list(streams_before(event_type)), cases, texts)
    ), f"{event_type.name} changes no column of {model.name}: fold it in projections/{model.name}.py"


def test_every_large_column_is_free_text() -> None:
    """An update that overwrites the texts writes every column: what it does not overwrite must have been loaded."""
    assert all(set(model.large_columns) <= set(model.free_text_columns) for model in READ_MODELS)


@pytest.mark.parametrize("model", READ_MODELS, ids=lambda model: model.name)
def test_a_rows_fields_are_its_tables_columns(model: ReadModel[Any]) -> None:
    fields, columns = set(model.columns), {column.name for column in model.table.columns}

    assert columns - fields == set(), f"columns of {model.name} that {model.row.__name__} in projections/rows.py lacks"
    assert fields - columns == set(), f"fields of {model.row.__name__} that projections/models/{model.name}.py lacks"


def test_tables_are_ordered_by_their_references() -> None:
    names = [model.name for model in REFERENCED_FIRST]

    assert names == ["campaigns", "agent_jobs", "content_assets", "budget_entries", "prices"]
    for model in REFERENCED_FIRST:
        assert all(names.index(target.name) <= names.index(model.name) for _, target, _ in model.references)


def test_every_category_but_the_ledgers_own_has_a_read_model() -> None:
    assert {event_type.category for event_type in CATALOGUE.values()} == {*READ_MODELS_BY_CATEGORY, "ledger"}
