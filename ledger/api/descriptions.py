"""Descriptions of every field and parameter in the OpenAPI document, in one place.

A key is the name of a field or parameter, or `Schema.name` if it means something else in that schema. A field of a new
event type that has no key is described in its struct, by `msgspec.Meta(description=…)`.
`tests/api/test_openapi.py` fails if one is missing or unused.
"""

from ledger.api.paging import LIMIT_DEFAULT, LIMIT_MAX, SORT_DEFAULT
from ledger.domain.cost import EXPIRES_IN_SECONDS_DEFAULT
from ledger.log.read import PAGE_EVENTS_MAX
from projections.positions import MIN_POSITION_SECONDS_MAX

_ANY_OF = "Several values are separated by commas."
_NULL_IF_NONE = "`null` if it has none."
_WAITS = f"Waits for at most {MIN_POSITION_SECONDS_MAX:.0f} s, then responds 503 `projection-behind`."

ENVELOPE = {
    "type": "The event type.",
    "id": "The event's identity, for safe retries: sent again to the same stream with the same content, the event is "
    "not recorded again and its first receipt is returned. Default: a new UUIDv7, or one derived from the header "
    "`Idempotency-Key`.",
    "stream_id": "The stream: the id of the campaign, asset, job or budget entry. The first event of a stream "
    "defaults to the event's `id`; later events must name their stream.",
    "expected_version": "The version that the stream must have before this event, else 409 `version-conflict`; "
    "0: the stream must not exist.",
    "occurred_at": "When it happened, as an RFC 3339 time with a zone. Default: when it is recorded.",
    "correlation_id": "An id shared by all events of one workflow.",
    "causation_id": "The id of the event or command that caused this one.",
    "data": "The event's data.",
}
"""Fields that are the same for every event that is sent."""

FIELDS = {
    "actor": "The name of the API key that sent the event; `local` without authentication and on the command line, "
    "`ledger` if the service wrote the event.",
    "agent_job_id": f"The job that it belongs to. {_NULL_IF_NONE}",
    "agent_type": "The kind of agent that does the job.",
    "available": "`budget` − `spent` − `held`; below 0 if the budget is exceeded.",
    "budget": "The most that may be spent.",
    "budget_remaining": "`budget` − `spend`.",
    "budget_used_percentage": "`spend` in percent of `budget`; 0 if the budget is 0.",
    "burn_rate_per_day": "The cost of the last 7 days, by `occurred_at`, divided by 7.",
    "campaign_id": f"The campaign that it belongs to. {_NULL_IF_NONE}",
    "campaign_ids": "The campaigns that the key is restricted to; `null`: it is not restricted.",
    "category": "The kind of stream.",
    "causation_id": ENVELOPE["causation_id"],
    "clicks": "Number of clicks.",
    "completed_at": "When the job was completed, failed or cancelled; `null` until then.",
    "content": "The text of the asset.",
    "content_type": "The kind of asset.",
    "conversions": "Number of conversions.",
    "correlation_id": ENVELOPE["correlation_id"],
    "cost": "The amount that was spent.",
    "created_at": "When the first event was recorded.",
    "currency": "ISO 4217 code.",
    "data": "The event's data, with its free text unless that was erased.",
    "database": "`ok`, or what is wrong with the database.",
    "day": "The UTC day of `occurred_at`, YYYY-MM-DD. Present if grouped by it.",
    "days_left": "`available` divided by the exact rate of the last 7 days; `null` if nothing was spent in them.",
    "description": "A description. Free text; it can be erased.",
    "detail": "What happened, with the values, and what to do next.",
    "duplicate": "Whether the event had been recorded before; then this is its first receipt.",
    "duration_seconds": "`completed_at` − `started_at`; `null` if one is `null`, or if they are in the wrong order.",
    "end_date": "The last day; not before `start_date`.",
    "entries": "Number of budget entries in the sum.",
    "erased": "Whether the event's free text was erased.",
    "error": "The error message.",
    "error_message": "Why the job failed. Free text; it can be erased.",
    "events": "The events, oldest first.",
    "expires_at": "When it expires; `null`: never.",
    "expires_in": f"The hold expires this many seconds after it is recorded; default {EXPIRES_IN_SECONDS_DEFAULT}.",
    "failed_at": "When it failed.",
    "from": "Size of the earlier tree.",
    "hashes": "The hashes of the proof in base64, in the order of RFC 6962.",
    "head": "Position of the last event in the log.",
    "held": "The sum of the open holds: reserved, and not yet settled, released or expired.",
    "id": "Unique id; the id of the stream whose events made it.",
    "impressions": "Number of impressions.",
    "index": "The index of the event in the request; absent if the request had a single event.",
    "input_data": "The input of the job: any JSON object. Free text; it can be erased.",
    "items": "The items.",
    "key": "The API key. It is in this response only; store it.",
    "lag_events": "Events in the log that are not yet reflected.",
    "lag_seconds": "Age of the oldest event that is not yet reflected, in seconds; 0 if there is none.",
    "last_error": "What stops the read models; `null` while they run.",
    "last_used_at": "When the key was last used, to about a minute; `null`: never.",
    "leaf_index": "Index of the event in the tree: its position − 1.",
    "max_retries": "How many times the job may be retried; default: without limit.",
    "message": "What the job is doing. Free text; it can be erased.",
    "metadata": "Any JSON object. Free text; it can be erased.",
    "migrations": "`ok`, or which migration is missing.",
    "model_used": f"The model, as its provider names it. {_NULL_IF_NONE}",
    "name": "The name.",
    "next": "The cursor of the next page; `null` on the last page.",
    "next_after": "The value of `after` for the next page; `null` if there are no more events.",
    "occurred_at": "When it happened.",
    "output_data": "The output of the job: any JSON object. Free text; it can be erased.",
    "over_budget": "Which budgets are exceeded after this cost: `job`, `campaign`. Costs are recorded even then; only "
    "holds are refused.",
    "position": "Position in the log.",
    "progress": "Progress of the job, from 0 to 1.",
    "projections": "`ok`, or what is wrong with the read models.",
    "provider": f"The provider of the model or service. {_NULL_IF_NONE}",
    "reason": "Why. Free text; it can be erased.",
    "recorded_at": "When the event was recorded.",
    "resource_type": "What the money was spent on.",
    "results": "One receipt or problem for each event, in the order of the request.",
    "retry_count": "How many times the job was retried.",
    "revenue": "Revenue in the campaign's currency.",
    "revoked_at": "When the key was revoked; `null`: it was not.",
    "roi": "Return on investment: (`revenue` − `spend`) / `spend`, rounded half-even to 10 decimals; 0 if `spend` "
    "is 0.",
    "role": "The role.",
    "schema_version": "The version of the event type's data in which the event is stored.",
    "sealer": "`ok`, or why the log is not sealed.",
    "spend": "The sum of all settled costs and their adjustments.",
    "spent": "The sum of all settled costs and their adjustments.",
    "start_date": "The first day.",
    "started_at": "When the job was last started; `null`: not yet.",
    "status": "The status.",
    "stream_id": "The stream of the event.",
    "title": "The title. Free text; it can be erased.",
    "to": "Size of the later tree.",
    "tokens_used": "Number of tokens.",
    "tree_size": "Size of the tree: the number of events in it.",
    "type": "The event type.",
    "updated_at": "When the last event was recorded.",
    "used_percentage": "`spent` in percent of `budget`; 0 if the budget is 0.",
    "version": "The version of the stream: the number of its events.",
    # Fields with another meaning in one schema.
    "Appended.events": "One receipt for each event, in the order of the request.",
    "Appended.position": "Position of the last of these events.",
    "BudgetEntryView.cost": "What was spent, with all adjustments; 0 until it is settled.",
    "BudgetEntryView.expires_at": "When the hold expires; `null` if the entry is not a hold.",
    "BudgetEntryView.held": "What is reserved; 0 unless the status is `held`.",
    "BudgetEntryView.occurred_at": "When the cost occurred; until it is settled, when the hold was made.",
    "CampaignBudgetChanged.budget": "The new budget. It may be lower than what is spent; then no hold fits.",
    "CampaignCreated.currency": "ISO 4217 code; default USD. All costs of the campaign are in this currency.",
    "CampaignMetricsRecorded.clicks": "Clicks since the last metrics; they are added.",
    "CampaignMetricsRecorded.conversions": "Conversions since the last metrics; they are added.",
    "CampaignMetricsRecorded.impressions": "Impressions since the last metrics; they are added.",
    "CampaignMetricsRecorded.revenue": "Revenue since the last metrics, in the campaign's currency; it is added.",
    "ContentAssigned.campaign_id": "The campaign that the asset is moved to; `null`: none.",
    "CostAdjusted.amount": "Added to the cost; may be negative. The cost cannot become less than 0.",
    "CostAdjusted.tokens_used": "Added to the number of tokens; may be negative.",
    "CostReserved.amount": "The amount to hold, more than 0. It must fit the job's and the campaign's budget, else 402 "
    "`budget-exceeded`.",
    "EventView.id": "The event's id.",
    "Failure.position": "Position of the event that cannot be applied; 0 if the error has another cause.",
    "Failure.type": "Type of the event that cannot be applied, or of the error.",
    "IndependentResults.position": "Position of the last event that was recorded; 0 if none was.",
    "JobQueued.budget": "The most that the job may spend; default: only the campaign's budget applies.",
    "JobQueued.currency": "ISO 4217 code, only for a job without a campaign; default USD.",
    "Problem.status": "The HTTP status.",
    "Problem.title": "A summary that is the same for every problem of this type.",
    "Problem.type": "A URI reference that identifies the type of the problem: `/problems/` and its name.",
    "Projection.name": "The read model.",
    "Projection.position": "Position of the last event that the read model reflects.",
    "Projection.status": "`running`; `failing`: retrying the event in `last_error`; `paused`: stopped by an operator.",
    "Receipt.id": "The event's id.",
    "Spend.currency": "ISO 4217 code; there is a sum for each currency.",
}
"""Fields of requests and responses."""

PARAMETERS = {
    "after": "Only events after this position (exclusive).",
    "agent_job_id": f"Only rows of these jobs. {_ANY_OF}",
    "agent_type": f"Only these kinds of agent. {_ANY_OF}",
    "as_of": "The state as of a position in the log, or as of a time of recording (RFC 3339 with a zone); both "
    "inclusive, and not in the future.",
    "campaign_id": f"Only rows of these campaigns. {_ANY_OF}",
    "category": f"Only these categories. {_ANY_OF}",
    "content_type": f"Only these kinds of asset. {_ANY_OF}",
    "created_after": "Only rows created at this time or later (inclusive; RFC 3339 with a zone).",
    "created_before": "Only rows created before this time (exclusive; RFC 3339 with a zone).",
    "cursor": "The value of `next` on the previous page; use it with the same `sort` and filters.",
    "from": "Only costs that occurred at this time or later (inclusive; RFC 3339 with a zone).",
    "group_by": "Sum by these keys, separated by commas; there is always one sum for each currency. Default: one sum.",
    "id": "The item's id.",
    "key_id": "The id of the API key.",
    "limit": f"The most items on a page, 1 to {LIMIT_MAX}; default {LIMIT_DEFAULT}.",
    "min_position": f"Answer only once the read models reflect this position. {_WAITS}",
    "mode": "`atomic`: all events or none are recorded; `independent`: each event is accepted or refused separately.",
    "model_used": f"Only these models. {_ANY_OF}",
    "name": f"Only these names. {_ANY_OF}",
    "occurred_after": "Only costs that occurred at this time or later (inclusive; RFC 3339 with a zone).",
    "occurred_before": "Only costs that occurred before this time (exclusive; RFC 3339 with a zone).",
    "position": "A position in the log.",
    "resource_type": f"Only costs for these resources. {_ANY_OF}",
    "size": "Size of the tree; default: the last sealed tree.",
    "sort": "Columns to sort by, separated by commas, `-` before a column for descending order; nulls come last. "
    f"Default `{SORT_DEFAULT}`.",
    "status": f"Only these statuses. {_ANY_OF}",
    "stream_id": "Only events of this stream.",
    "tile": "`LEVEL/INDEX[.p/WIDTH]` for a tile of hashes, `entries/INDEX[.p/WIDTH]` for a bundle of entries; see C2SP "
    "tlog-tiles.",
    "title": f"Only these titles. {_ANY_OF}",
    "to": "Only costs that occurred before this time (exclusive; RFC 3339 with a zone).",
    "type": f"Only these event types. {_ANY_OF}",
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
    "EventsQuery.agent_job_id": "Only events of this job and of its costs and assets.",
    "EventsQuery.campaign_id": "Only events of this campaign and of its jobs, costs and assets.",
    "EventsQuery.limit": f"The most events on a page, 1 to {PAGE_EVENTS_MAX:,}; default 100.",
    "ExportQuery.until": "Only events up to this position (inclusive); default: the last event.",
    "FeedQuery.after": "Start after this position (exclusive); default: the end of the log.",
    "FeedQuery.agent_job_id": "Only events of this job and of its costs and assets.",
    "FeedQuery.campaign_id": "Only events of this campaign and of its jobs, costs and assets.",
    "SpendQuery.campaign_id": "Only costs of this campaign.",
    "TimelineQuery.agent_job_id": "Only events of this job and of its costs and assets.",
    "TimelineQuery.limit": f"The most events on a page, 1 to {PAGE_EVENTS_MAX:,}; default 100.",
    "path.category": "The category of the stream.",
    "path.stream_id": "The id of the stream.",
}
"""Query parameters, headers, and path parameters (`path.name` if a query parameter has the same name)."""


def describe(descriptions: dict[str, str], owner: str, name: str, declared: str = "") -> str:
    """Return the description of `name` in `owner`.

    Args:
        descriptions: `ENVELOPE`, `FIELDS` or `PARAMETERS`.
        owner: the schema or query struct.
        name: the field or parameter.
        declared: the description in the struct, used if this module has none.

    Returns:
        The description.

    Raises:
        LookupError: there is none; add it to the struct or to this module.
    """
    for key in (f"{owner}.{name}", name):
        if key in descriptions:
            return descriptions[key]
    if declared:
        return declared
    raise LookupError(
        f"{owner}.{name} has no description: add msgspec.Meta(description=…) to the field, or a line to "
        "ledger/api/descriptions.py"
    )
