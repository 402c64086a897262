"""Descriptions of query parameters, headers and path parameters in the OpenAPI document."""

from ledger.api.paging import LIMIT_DEFAULT, LIMIT_MAX, SORT_DEFAULT
from ledger.log.read import PAGE_EVENTS_MAX
from projections.positions import MIN_POSITION_SECONDS_MAX

_ANY_OF = "Several values are separated by commas."
_WAITS = f"Waits for at most {MIN_POSITION_SECONDS_MAX:.0f} s, then responds 503 `projection-behind`."

PARAMETERS = {
    "actor": f"Only rows that were begun with these API keys. {_ANY_OF}",
    "after": "Only events after this position (exclusive).",
    "agent_job_id": f"Only rows of these jobs. {_ANY_OF}",
    "agent_name": f"Only rows of agents with these names. {_ANY_OF}",
    "agent_type": f"Only these kinds of agent. {_ANY_OF}",
    "as_of": "The state as of a position in the log, or as of a time of recording (RFC 3339 with a zone); both "
    "inclusive, and not in the future.",
    "basis": "`occurred`: a cost counts when it occurred, with its adjustments; `booked`: each movement counts when it "
    "was recorded, so that a past period never changes.",
    "campaign_id": f"Only rows of these campaigns. {_ANY_OF}",
    "category": f"Only these categories. {_ANY_OF}",
    "content_type": f"Only these kinds of asset. {_ANY_OF}",
    "created_after": "Only rows created at this time or later (inclusive; RFC 3339 with a zone).",
    "created_before": "Only rows created before this time (exclusive; RFC 3339 with a zone).",
    "correlation_id": "Only events of the workflow with this id.",
    "cursor": "The value of `next` on the previous page; use it with the same `sort` and filters.",
    "fields": "Only these fields of each item, in this order, separated by commas. Default: all.",
    "from": "Only costs at this time or later (inclusive): a time (RFC 3339 with a zone), or a date, which is the "
    "start of that day in `time_zone`.",
    "group_by": "Sum by these keys, separated by commas; there is always one sum for each currency. Default: one sum. "
    "`label.KEY` is the value of a label.",
    "id": "The item's id.",
    "key_id": "The id of the API key.",
    "labels": f"`label.KEY=value`: only rows with this label. {_ANY_OF}",
    "limit": f"The most items on a page, 1 to {LIMIT_MAX}; default {LIMIT_DEFAULT}.",
    "currency": f"Only these currencies. {_ANY_OF}",
    "min_position": f"Answer only once the read models reflect this position. {_WAITS}",
    "mode": "`atomic`: all events or none are recorded; `independent`: each event is accepted or refused separately.",
    "model": f"Only these models. {_ANY_OF}",
    "model_used": f"Only these models. {_ANY_OF}",
    "name": f"Only these names. {_ANY_OF}",
    "occurred_after": "Only costs that occurred at this time or later (inclusive; RFC 3339 with a zone).",
    "occurred_before": "Only costs that occurred before this time (exclusive; RFC 3339 with a zone).",
    "parent_job_id": f"Only jobs that were started by these jobs. {_ANY_OF}",
    "position": "A position in the log.",
    "provider": f"Only these providers. {_ANY_OF}",
    "response_id": f"Only costs of the provider's replies with these ids. {_ANY_OF}",
    "recorded_from": "Only events recorded at this time or later (inclusive; RFC 3339 with a zone).",
    "recorded_to": "Only events recorded before this time (exclusive; RFC 3339 with a zone).",
    "resource_type": f"Only costs for these resources. {_ANY_OF}",
    "root_job_id": f"Only jobs in the trees of these jobs. {_ANY_OF}",
    "service_tier": f"Only these service tiers. {_ANY_OF}",
    "size": "Size of the tree; default: the last sealed tree.",
    "sort": "Columns to sort by, separated by commas, `-` before a column for descending order; nulls come last. "
    f"Default `{SORT_DEFAULT}`.",
    "status": f"Only these statuses. {_ANY_OF}",
    "stream_id": "Only events of this stream.",
    "tile": "`LEVEL/INDEX[.p/WIDTH]` for a tile of hashes, `entries/INDEX[.p/WIDTH]` for a bundle of entries; see C2SP "
    "tlog-tiles.",
    "time_zone": "The zone of hours, days, weeks, months and dates: a name of the IANA database; default `UTC`.",
    "title": f"Only these titles. {_ANY_OF}",
    "to": "Only costs before this time (exclusive): a time (RFC 3339 with a zone), or a date, which is the start of "
    "that day in `time_zone`.",
    "trace_id": f"Only rows with these W3C trace ids. {_ANY_OF}",
    "type": f"Only these event types. {_ANY_OF}",
    "unpriced": "`true`: only entries whose cost is not known yet; `false`: only the others.",
    "until": "Only events up to this position (inclusive).",
    "Idempotency-Key": "Makes a retry safe: events without an `id` get one that is derived from this key and their "
    "index, so a request that is sent again is recorded once. For 24 hours the key belongs to the content of its first "
    "request: events that another one would record are 409 `event-id-conflict`.",
    "Last-Event-ID": "Continue after this position; browsers send it when they reconnect. It takes precedence over "
    "`after`.",
    "Ledger-Min-Position": f"The same as `min_position`, which takes precedence. {_WAITS}",
    # Parameters with another meaning for one resource.
    "ConsistencyQuery.from": "Size of the earlier tree.",
    "ConsistencyQuery.to": "Size of the later tree; default: the last sealed tree.",
    "EventsQuery.actor": "Only events sent with this API key.",
    "EventsQuery.agent_job_id": "Only events of this job and of its costs and assets.",
    "EventsQuery.campaign_id": "Only events of this campaign and of its jobs, costs and assets.",
    "EventsQuery.limit": f"The most events on a page, 1 to {PAGE_EVENTS_MAX:,}; default 100.",
    "ExportQuery.until": "Only events up to this position (inclusive); default: the last event.",
    "FeedQuery.actor": "Only events sent with this API key.",
    "FeedQuery.after": "Start after this position (exclusive); default: the end of the log.",
    "FeedQuery.agent_job_id": "Only events of this job and of its costs and assets.",
    "FeedQuery.campaign_id": "Only events of this campaign and of its jobs, costs and assets.",
    "PricesQuery.stream_id": f"Only prices of these streams. {_ANY_OF}",
    "SpendQuery.as_of": "The sums as they were at a position in the log, or at a time of recording (RFC 3339 with a "
    "zone); both inclusive, and not in the future.",
    "SpendQuery.campaign_id": "Only costs of this campaign.",
    "TimelineQuery.actor": "Only events sent with this API key.",
    "TimelineQuery.agent_job_id": "Only events of this job and of its costs and assets.",
    "TimelineQuery.limit": f"The most events on a page, 1 to {PAGE_EVENTS_MAX:,}; default 100.",
    "path.category": "The category of the stream.",
    "path.stream_id": "The id of the stream.",
}
"""Query parameters, headers, and path parameters (`path.name` if a query parameter has the same name)."""
