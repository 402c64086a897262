"""Sums of costs by any keys: of entries as they are now, or of postings as they were booked."""

import re
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

from ledger.database import Connection
from ledger.database.singleton import CHECKPOINT_TABLE, require_row
from ledger.time_zones import Offsets
from projections.checkpoint import GROUP
from projections.journals import CHARGES

COLUMNS = {
    "resource_type": "entry.resource_type",
    "model_used": "entry.model_used",
    "provider": "entry.provider",
    "service_tier": "entry.service_tier",
    "actor": "entry.actor",
    "agent_job_id": "entry.agent_job_id",
    "root_job_id": "job.root_job_id",
    "agent_type": "job.agent_type",
    "agent_name": "job.agent_name",
}
PERIODS = {
    "hour": """to_char({local}, 'YYYY-MM-DD"T"HH24:00:00') || {offset}""",
    "day": "to_char({local}, 'YYYY-MM-DD')",
    "week": """to_char({local}, 'IYYY-"W"IW')""",
    "month": "to_char({local}, 'YYYY-MM')",
}
KEYS = (*PERIODS, *COLUMNS, "campaign_id")
"""What spend can be grouped by, besides `label.KEY`."""

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")

_LABEL = re.compile(r"label\.([a-z][a-z0-9_.-]{0,62})", re.ASCII)

Basis = Literal["occurred", "booked"]


class SpendSelection(NamedTuple):
    """Which costs to sum, and how.

    Attributes:
        groups: keys out of `KEYS`, or `label.KEY`.
        start: of the period, inclusive; None: no start.
        end: of the period, exclusive; None: no end.
        campaign_id: only costs of this campaign; None: of any.
        allowed_campaign_ids: only costs of these campaigns; None: of any.
        zone: of hours, days, weeks and months; None: UTC.
        basis: the time by which costs are in the period: when they occurred, or when each movement was booked.
        position: only movements up to this position; None: all.
    """

    groups: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    campaign_id: UUID | None
    allowed_campaign_ids: Collection[UUID] | None
    zone: Offsets | None
    basis: Basis
    position: int | None


_BOOKED_UNPRICED = "count(*) FILTER (WHERE posting.unpriced)"


class _Source(NamedTuple):
    """The SQL of what is summed: entries, or postings."""

    rows: str
    condition: str
    time: str
    campaign_id: str
    cost: str
    tokens_used: str
    charged: str
    unpriced: str


_ENTRIES = _Source(
    rows="budget_entries AS entry",
    condition="entry.status = 'settled'",
    time="entry.occurred_at",
    campaign_id="entry.campaign_id",
    cost="entry.cost",
    tokens_used="entry.tokens_used",
    charged="true",
    unpriced="count(*) FILTER (WHERE entry.unpriced)",
)

_POSTINGS = _Source(
    rows="cost_postings AS posting JOIN budget_entries AS entry ON entry.id = posting.entry_id",
    condition="true",
    time="entry.occurred_at",
    campaign_id="posting.campaign_id",
    cost="posting.amount",
    tokens_used="posting.tokens_used",
    charged=f"posting.type IN ({', '.join(repr(name) for name in sorted(CHARGES))})",
    unpriced=f"{_BOOKED_UNPRICED} - count(*) FILTER (WHERE posting.type = 'priced')",
)


def is_key(name: str) -> bool:
    """Whether spend can be grouped by this."""
    return name in KEYS or _LABEL.fullmatch(name) is not None


async def read_spend(connection: Connection, selection: SpendSelection, limit: int) -> tuple[int, int, str]:
    """Sum settled costs by groups, and always by currency too.

    Args:
        connection: of the primary or a replica.
        selection: the costs and the groups.
        limit: the most sums.

    Returns:
        the position reflected, the number of sums, and a JSON array of them, in the order of the keys.
    """
    query, arguments = _statement(selection, limit)
    row = require_row(await connection.fetchrow(query, *arguments), CHECKPOINT_TABLE)
    return row[0], row[1], row[2] or "[]"


def _statement(selection: SpendSelection, limit: int) -> tuple[str, list[Any]]:
    arguments: list[Any] = [GROUP]

    def parameter(value: Any, kind: str) -> str:
        arguments.append(value)
        return f"${len(arguments)}::{kind}"

    source = _ENTRIES if selection.basis == "occurred" and selection.position is None else _POSTINGS
    source = source._replace(time="posting.booked_at") if selection.basis == "booked" else source
    keys = [*_keys(selection, source, parameter), "entry.currency"]
    figures = _figures(source, selection.basis)
    # PostgreSQL cuts names of more than 63 bytes off, such as `label.KEY`.
    columns = [f"{key} AS key_{number}" for number, key in enumerate(keys, 1)]
    members = {name: f"key_{number}" for number, name in enumerate((*selection.groups, "currency"), 1)}
    order = ", ".join(members.values())
    with_name = "campaign_id" in selection.groups
    if with_name:
        columns.append("nullif(campaign.name, '') AS campaign_name")
        members["campaign_name"] = "campaign_name"
    members |= {name: name for name in figures}
    query = f"""
        WITH sums AS (
            SELECT {", ".join([*columns, *(f"{figure} AS {name}" for name, figure in figures.items())])}
            FROM {source.rows} LEFT JOIN agent_jobs AS job
                ON job.id = entry.agent_job_id AND {_visible_job(selection, parameter)}
                {f"LEFT JOIN campaigns AS campaign ON campaign.id = {source.campaign_id}" if with_name else ""}
            WHERE {" AND ".join(_conditions(selection, source, parameter))}
            GROUP BY {order}{", campaign_name" if with_name else ""}
            ORDER BY {order}
            LIMIT {limit}
        )
        SELECT position, (SELECT count(*) FROM sums),
            '[' || (SELECT string_agg({_json_object(members)}, ',' ORDER BY {order}) FROM sums) || ']'
        FROM ledger.projection_checkpoints WHERE name = $1
    """  # noqa: S608 (the names are keys that `is_key` accepts)
    return query, arguments


def _json_object(members: dict[str, str]) -> str:
    """Return SQL that writes columns as a JSON object, by the names of its members."""
    parts = [f"""'"{name}":' || coalesce(to_json({column})::text, 'null')""" for name, column in members.items()]
    return f"""'{{' || {" || ',' || ".join(parts)} || '}}'"""


def _keys(selection: SpendSelection, source: _Source, parameter: Callable[[Any, str], str]) -> list[str]:
    local, offset = _local_time(selection, source.time, parameter)
    return [_key(name, source, local, offset) for name in selection.groups]


def _key(name: str, source: _Source, local: str, offset: str) -> str:
    if name in PERIODS:
        return PERIODS[name].format(local=local, offset=offset)
    if name == "campaign_id":
        return source.campaign_id
    if (label := _LABEL.fullmatch(name)) is not None:
        return f"entry.labels ->> '{label[1]}'"
    return COLUMNS[name]


def _local_time(selection: SpendSelection, time: str, parameter: Callable[[Any, str], str]) -> tuple[str, str]:
    """Return SQL for the local time of a row, and for its offset from UTC as text."""
    zone = selection.zone
    if zone is None or not PERIODS.keys() & set(selection.groups):
        return f"({time} AT TIME ZONE 'UTC')", "'Z'"
    number = f"[1 + width_bucket({time}, {parameter(zone.starts, 'timestamptz[]')})]"
    local = f"({time} AT TIME ZONE 'UTC' + ({parameter(zone.offsets, 'interval[]')}){number})"
    if "hour" not in selection.groups:
        return local, ""
    texts = [_offset_text(each) for each in zone.offsets]
    return local, f"({parameter(texts, 'text[]')}){number}"


def _offset_text(offset: timedelta) -> str:
    seconds = abs(round(offset.total_seconds()))
    parts = [seconds // 3600, seconds // 60 % 60, *([seconds % 60] if seconds % 60 else [])]
    return ("-" if offset < timedelta(0) else "+") + ":".join(f"{part:02}" for part in parts)


def _figures(source: _Source, basis: Basis) -> dict[str, str]:
    """Return the SQL of the sums by their names."""
    # A past period must not change: what was booked without a cost stays so there.
    unpriced = _BOOKED_UNPRICED if basis == "booked" else source.unpriced
    return {
        "cost": f"trim_scale(sum({source.cost}))::text",
        "tokens_used": f"sum({source.tokens_used})",
        **{name: f"coalesce(sum(entry.{name}) FILTER (WHERE {source.charged}), 0)" for name in TOKENS},
        "entries": f"count(*) FILTER (WHERE {source.charged})",
        "unpriced": unpriced,
    }


def _visible_job(selection: SpendSelection, parameter: Callable[[Any, str], str]) -> str:
    """Return the condition for jobs whose names may be shown: a cost may name one of another or of no campaign."""
    if selection.allowed_campaign_ids is None:
        return "true"
    return f"job.campaign_id = ANY ({parameter(list(selection.allowed_campaign_ids), 'uuid[]')})"


def _conditions(selection: SpendSelection, source: _Source, parameter: Callable[[Any, str], str]) -> list[str]:
    conditions = [source.condition]
    if selection.start is not None:
        conditions.append(f"{source.time} >= {parameter(selection.start, 'timestamptz')}")
    if selection.end is not None:
        conditions.append(f"{source.time} < {parameter(selection.end, 'timestamptz')}")
    if selection.campaign_id is not None:
        conditions.append(f"{source.campaign_id} = {parameter(selection.campaign_id, 'uuid')}")
    if selection.allowed_campaign_ids is not None:
        allowed = parameter(list(selection.allowed_campaign_ids), "uuid[]")
        conditions.append(f"{source.campaign_id} = ANY ({allowed})")
    if selection.position is not None:
        conditions.append(f"posting.position <= {parameter(selection.position, 'bigint')}")
    return conditions
