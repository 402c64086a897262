"""The descriptors of the read models: name, event category, row, and the kind of each column.

Every list of tables or columns is derived from here. The kind of a column (money, time, JSON) follows from its type in
`projections.models`, where `info=` also declares that a column holds free text or is large.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, NamedTuple

from sqlalchemy import JSON, Boolean, DateTime, Integer, Numeric, String, Table, Uuid
from sqlalchemy.types import TypeEngine

from projections.models import AgentJob, Base, BudgetEntry, Campaign, ContentAsset, Price
from projections.models.columns import OpenKind
from projections.price_rows import PriceRow, PriceRows
from projections.rows import AgentJobRow, BudgetEntryRow, CampaignRow, ContentAssetRow, R, Rows

Kind = Literal["id", "time", "money", "integer", "boolean", "json", "text"]
"""What a column holds. `money` is any exact decimal."""

_KINDS: tuple[tuple[type[TypeEngine[Any]], Kind], ...] = (
    (Uuid, "id"),
    (DateTime, "time"),
    (Numeric, "money"),
    (Integer, "integer"),
    (Boolean, "boolean"),
    (JSON, "json"),
    (String, "text"),
    (OpenKind, "text"),
)


class Reference(NamedTuple):
    """A foreign key from a column to another read model; `on_delete` is `SET NULL` or `CASCADE`."""

    column: str
    target: "ReadModel[Any]"
    on_delete: str


@dataclass(frozen=True, eq=False)
class ReadModel(Generic[R]):
    """One read model: a table with one row for each stream of a category, or, of prices, for each event.

    Args:
        category: of the events whose streams have a row here.
        row: the row while events are folded into it; its fields are the table's columns.
        orm_class: the SQLAlchemy model, which declares the columns' types and kinds.
        campaign_column: the column with the id of the campaign that a row counts for; None: for none.
        stream_column: the column with the id of the stream that a row is made of.
        rows_class: of the rows that a page touches.
    """

    category: str
    row: type[R]
    orm_class: type[Base]
    campaign_column: str | None = "campaign_id"
    stream_column: str = "id"
    rows_class: type[Rows[Any]] = Rows

    @cached_property
    def table(self) -> Table:
        """The table of the SQLAlchemy model."""
        return Base.metadata.tables[self.name]

    @cached_property
    def name(self) -> str:
        """The table's name."""
        return str(self.orm_class.__tablename__)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the order of the row's fields."""
        return self.row.__struct_fields__

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each column."""
        return {column.name: _kind(column.type) for column in self.table.columns}

    @cached_property
    def free_text_columns(self) -> tuple[str, ...]:
        """Columns that events' free text is folded into: an erasure overwrites all of them."""
        return tuple(name for name in self.columns if "free_text" in self.table.c[name].info)

    @cached_property
    def large_columns(self) -> tuple[str, ...]:
        """Columns that a fold neither loads nor writes again unless an event brings a new value."""
        return tuple(name for name in self.columns if "large" in self.table.c[name].info)

    @cached_property
    def json_columns(self) -> frozenset[str]:
        """Columns of type `json`, which rows hold as text."""
        return frozenset(name for name, kind in self.kinds.items() if kind == "json")

    def is_nullable(self, column: str) -> bool:
        """Whether a column may be null."""
        return bool(self.table.c[column].nullable)

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Foreign keys to other read models."""
        keys = ((column.name, key) for column in self.table.columns for key in column.foreign_keys)
        return tuple(
            Reference(name, READ_MODELS_BY_NAME[key.column.table.name], key.ondelete or "NO ACTION")
            for name, key in keys
        )

    @cached_property
    def set_null_references(self) -> tuple[Reference, ...]:
        """Foreign keys that the deletion of the row they refer to sets to NULL."""
        return tuple(reference for reference in self.references if reference.on_delete == "SET NULL")


def _kind(sql_type: TypeEngine[Any]) -> Kind:
    return next(kind for class_, kind in _KINDS if isinstance(sql_type, class_))


CAMPAIGNS = ReadModel("campaign", CampaignRow, Campaign, campaign_column="id")
CONTENT_ASSETS = ReadModel("content", ContentAssetRow, ContentAsset)
AGENT_JOBS = ReadModel("job", AgentJobRow, AgentJob)
BUDGET_ENTRIES = ReadModel("cost", BudgetEntryRow, BudgetEntry)
PRICES = ReadModel("price", PriceRow, Price, campaign_column=None, stream_column="stream_id", rows_class=PriceRows)

READ_MODELS: tuple[ReadModel[Any], ...] = (CAMPAIGNS, CONTENT_ASSETS, AGENT_JOBS, BUDGET_ENTRIES, PRICES)
"""All read models, in the order in which they are listed."""

NAMES = tuple(model.name for model in READ_MODELS)

READ_MODELS_BY_NAME = {model.name: model for model in READ_MODELS}

READ_MODELS_BY_CATEGORY = {model.category: model for model in READ_MODELS}
"""The streams of other categories have no rows."""


def _referenced_first(models: Iterable[ReadModel[Any]]) -> tuple[ReadModel[Any], ...]:
    ordered: dict[ReadModel[Any], None] = {}
    for model in models:
        targets = (reference.target for reference in model.references if reference.target is not model)
        ordered |= dict.fromkeys(_referenced_first(targets))
        ordered[model] = None
    return tuple(ordered)


REFERENCED_FIRST = _referenced_first(READ_MODELS)
"""All read models in the order of insertion: every table after those that its foreign keys refer to."""
