"""Descriptions of every field in the OpenAPI document; see `parameter_descriptions` for parameters.

A key is the name of a field or parameter, or `Schema.name` if it means something else in that schema. A field of a new
event type that has no key is described in its struct, by `msgspec.Meta(description=…)`.
`tests/api/test_openapi.py` fails if one is missing or unused.
"""

from ledger.domain.cost import EXPIRES_IN_SECONDS_DEFAULT

_NULL_IF_NONE = "`null` if it has none."

_JOB_BUDGET = "The most that the job and the jobs below it may spend; default: only the budgets above it apply."
_JOB_CURRENCY = "ISO 4217 code, only for a job without a campaign; default: that of its parent, or USD."
_PARENT = "The job that started this one. Costs count for the jobs above too, at most 15 levels of them."

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
    "adjusted": "The sum of the adjustments, which `cost` includes.",
    "agent_job_id": f"The job that it belongs to. {_NULL_IF_NONE}",
    "agent_name": "The name of the agent, as distinct from its kind.",
    "agent_type": "The kind of agent that does the job.",
    "amount": "The amount of money.",
    "available": "`budget` − `spent` − `held`; below 0 if the budget is exceeded, `null` without one.",
    "budget": "The most that may be spent; `null`: no limit.",
    "budget_remaining": "`budget` − `spend`; `null` without a budget.",
    "budget_used_percentage": "`spend` in percent of `budget`; 0 unless both are more than 0, `null` without one.",
    "burn_rate_per_day": "The cost of the last 7 days, by `occurred_at`, divided by 7.",
    "cache_read_tokens": "Input tokens that were read from a cache.",
    "cache_write_1h_tokens": "Those of `cache_write_tokens` that are kept for an hour.",
    "cache_write_tokens": "Input tokens that were written to a cache, whatever their lifetime there.",
    "campaign_id": f"The campaign that it belongs to. {_NULL_IF_NONE}",
    "campaign_ids": "The campaigns that the key is restricted to; `null`: it is not restricted.",
    "category": "The kind of stream.",
    "causation_id": ENVELOPE["causation_id"],
    "characters": "Number of characters.",
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
    "day": "The day, YYYY-MM-DD. Present if grouped by it.",
    "days_left": "`available` divided by the exact rate of the last 7 days; `null` if nothing was "
    "spent in them, or without a budget.",
    "depth": "How many levels it is below the job at the top.",
    "description": "A description. Free text; it can be erased.",
    "detail": "What happened, with the values, and what to do next.",
    "duplicate": "Whether the event had been recorded before; then this is its first receipt.",
    "duration_seconds": "`completed_at` − `started_at`; `null` if one is `null`, or if they are in the wrong order.",
    "end_date": "The last day; not before `start_date`.",
    "entries": "Number of budget entries that were charged.",
    "erased": "Whether the event's free text was erased.",
    "effective_from": "The price applies from this time on, until the next price of its stream.",
    "effective_to": "When the next price or a withdrawal begins to apply instead; `null`: none is known.",
    "error": "The error message.",
    "error_message": "Why the job failed. Free text; it can be erased.",
    "events": "The events, oldest first.",
    "expires_at": "When it expires; `null`: never.",
    "expires_in": f"The hold expires this many seconds after it is recorded; default {EXPIRES_IN_SECONDS_DEFAULT}.",
    "failed_at": "When it failed.",
    "hashes": "The hashes of the proof in base64, in the order of RFC 6962.",
    "head": "Position of the last event in the log.",
    "held": "The sum of the open holds: reserved, and not yet settled, released or expired.",
    "id": "Unique id; the id of the stream whose events made it.",
    "images": "Number of images.",
    "impressions": "Number of impressions.",
    "index": "The index of the event in the request; absent if the request had a single event.",
    "input_audio_tokens": "Input tokens of audio.",
    "input_data": "The input of the job: any JSON object. Free text; it can be erased.",
    "input_tokens": "All input tokens, cached ones included.",
    "items": "The items.",
    "key": "The API key. It is in this response only; store it.",
    "labels": "Names and values to group and filter by, at most 16. Jobs and entries also have the labels of their "
    "campaign, entries those of their job.",
    "lag_events": "Events in the log that are not yet reflected.",
    "lag_seconds": "Age of the oldest event that is not yet reflected, in seconds; 0 if there is none.",
    "last_error": "What stops the read models; `null` while they run.",
    "last_used_at": "When the key was last used, to about a minute; `null`: never.",
    "leaf_index": "Index of the event in the tree: its position − 1.",
    "max_retries": "How many times the job may be retried; default: without limit.",
    "message": "What the job is doing. Free text; it can be erased.",
    "metadata": "Any JSON object. Free text; it can be erased.",
    "migrations": "`ok`, or which migration is missing.",
    "model": "The name of the model.",
    "model_used": f"The model, as its provider names it. {_NULL_IF_NONE}",
    "name": "The name.",
    "names": "Further names of the model.",
    "next": "The cursor of the next page; `null` on the last page.",
    "next_after": "The value of `after` for the next page; `null` if there are no more events.",
    "occurred_at": "When it happened.",
    "original": "What a bill in another currency said.",
    "output_audio_tokens": "Output tokens of audio.",
    "output_data": "The output of the job: any JSON object. Free text; it can be erased.",
    "output_tokens": "All output tokens, reasoning included.",
    "over_budget": "Which budgets are exceeded after this cost: `job`, `ancestor`, `campaign`. Costs are recorded even "
    "then; only holds are refused.",
    "parent_job_id": "The job that started this one. `null` if none did.",
    "per": "The number of units that a rate is for: a power of 10, by default 1,000,000.",
    "position": "Position in the log.",
    "prefixes": "Beginnings of names that have this price too; the longest that fits counts.",
    "price": "Position of the price event that the cost was computed by. Set by the service.",
    "price_position": "Position of the price by which the cost was computed; `null` if it was sent.",
    "progress": "Progress of the job, from 0 to 1.",
    "projections": "`ok`, or what is wrong with the read models.",
    "provider": f"The provider of the model or service. {_NULL_IF_NONE}",
    "rates": "What `per` units of each counter cost. A counter without one is charged like the one that includes it.",
    "rate": "What one unit of `currency` cost in the currency of the entry.",
    "reason": "Why. Free text; it can be erased.",
    "reasoning_tokens": "Output tokens of reasoning.",
    "recorded_at": "When the event was recorded.",
    "requests": "Number of requests.",
    "resource_type": "What the money was spent on.",
    "response_id": "The provider's id of its reply.",
    "results": "One receipt or problem for each event, in the order of the request.",
    "retry_count": "How many times the job was retried.",
    "revenue": "Revenue in the campaign's currency.",
    "revoked_at": "When the key was revoked; `null`: it was not.",
    "roi": "Return on investment: (`revenue` − `spend`) / `spend`, rounded half-even to 10 decimals; 0 unless "
    "`spend` is more than 0.",
    "role": "The role.",
    "root_job_id": "The first job of the tree; its own id there.",
    "schema_version": "The version of the event type's data in which the event is stored.",
    "sealer": "`ok`, or why the log is not sealed.",
    "searches": "Number of searches.",
    "seconds": "Number of seconds.",
    "service_tier": "The provider's class of service, on which its prices depend.",
    "source": "Where the price was taken from.",
    "span_id": "The span id of W3C Trace Context: 16 lower-case hexadecimal digits.",
    "spend": "The sum of all settled costs, their adjustments and credits; below 0 if more came back than was spent.",
    "spent": "The sum of all settled costs, their adjustments and credits; below 0 if more came back than was spent.",
    "start_date": "The first day.",
    "started_at": "When the job was last started; `null`: not yet.",
    "status": "The status.",
    "stream_id": "The stream of the event.",
    "tiers": "Rates that apply to a whole call with more than `above_input_tokens`, instead of those of the same name.",
    "title": "The title. Free text; it can be erased.",
    "tokens_used": "Number of tokens.",
    "trace_id": "The trace id of W3C Trace Context: 32 lower-case hexadecimal digits.",
    "tree_cost": "The cost of the job and of all jobs below it.",
    "tree_size": "Size of the tree: the number of events in it.",
    "type": "The event type.",
    "unpriced": "Whether usage was reported, but no price was found: then the cost is 0 for now, and not free.",
    "updated_at": "When the last event was recorded.",
    "usage": "What the call used, in the counters of OpenTelemetry; `null` if it was not reported.",
    "used_percentage": "`spent` in percent of `budget`; 0 unless both are more than 0, `null` without one.",
    "withdrawn": "Whether the model has no price from `effective_from` on.",
    "version": "The version of the stream: the number of its events.",
    # Fields with another meaning in one schema.
    "Appended.events": "One receipt for each event, in the order of the request.",
    "Appended.position": "Position of the last of these events.",
    "BudgetEntryView.cost": "What was spent, with all adjustments; 0 until it is settled, below 0 for a credit.",
    "BudgetEntryView.expires_at": "When the hold expires; `null` if the entry is not a hold.",
    "BudgetEntryView.held": "What is reserved; 0 unless the status is `held`.",
    "BudgetEntryView.occurred_at": "When the cost occurred; until it is settled, when the hold was made.",
    "CampaignBudgetChanged.budget": "The new budget; `null` removes the limit; if absent, it stays. It may be lower "
    "than what is spent: then no hold fits.",
    "CampaignCreated.currency": "ISO 4217 code; default USD. All costs of the campaign are in this currency.",
    "CampaignMetricsRecorded.clicks": "Clicks since the last metrics; they are added.",
    "CampaignMetricsRecorded.conversions": "Conversions since the last metrics; they are added.",
    "CampaignMetricsRecorded.impressions": "Impressions since the last metrics; they are added.",
    "CampaignMetricsRecorded.revenue": "Revenue since the last metrics, in the campaign's currency; it is added.",
    "ConsistencyProof.from": "Size of the earlier tree.",
    "ConsistencyProof.to": "Size of the later tree.",
    "ContentAssigned.campaign_id": "The campaign that the asset is moved to; `null`: none.",
    "CostAdjusted.amount": "Added to the cost; may be negative. A cost cannot become less than 0, a credit not more.",
    "CostAdjusted.tokens_used": "Added to the number of tokens; may be negative.",
    "CostCredited.amount": "The money that came back, more than 0. The cost of the entry is this with a negative sign.",
    "CostExtended.expires_in": "The hold expires this many seconds after this event is recorded.",
    "CostReserved.amount": "The amount to hold, more than 0. It must fit the budgets of the job, of all jobs above it "
    "and of the campaign, else 402 `budget-exceeded`.",
    "EventView.id": "The event's id.",
    "Failure.position": "Position of the event that cannot be applied; 0 if the error has another cause.",
    "Failure.type": "Type of the event that cannot be applied, or of the error.",
    "PriceView.id": "The id of the price; a stream has several.",
    "PriceView.stream_id": "The stream of all prices of the provider, model, service tier and currency.",
    "PriceView.price_position": "Position of its price event, as in `price_position` of budget entries.",
    "PriceWithdrawn.effective_from": "From this time on there is no price, also for the names and prefixes of the "
    "price that ends.",
    "Quote.model_used": "The model, as its provider names it.",
    "Quote.provider": "The provider of the model.",
    "Quote.usage": "What the call used, in the counters of OpenTelemetry.",
    "Rates.input_tokens": "Rate of input tokens that are neither read from nor written to a cache.",
    "Source.name": "The name of the list of prices.",
    "Source.sha256": "The SHA-256 digest of the list, in hexadecimal digits.",
    "Source.version": "The version of the list.",
    "Tier.above_input_tokens": "The tier applies to calls with more input tokens, cached ones included.",
    "IndependentResults.position": "Position of the last event that was recorded; 0 if none was.",
    "JobBudgetChanged.budget": "The new budget; `null` removes the limit; if absent, it stays. It may be lower than "
    "what is spent: then no hold fits.",
    "JobCompleted.started_at": "When the job was started, if no `job.started` said so.",
    "JobQueued.budget": _JOB_BUDGET,
    "JobQueued.currency": _JOB_CURRENCY,
    "JobQueued.parent_job_id": _PARENT,
    "JobRecorded.budget": _JOB_BUDGET,
    "JobRecorded.completed_at": "When the job ended; default: `occurred_at`.",
    "JobRecorded.currency": _JOB_CURRENCY,
    "JobRecorded.error_message": "Why the job failed; required if it did. Free text; it can be erased.",
    "JobRecorded.parent_job_id": _PARENT,
    "JobRecorded.started_at": "When the job was started.",
    "JobRecorded.status": "How the job ended.",
    "Problem.status": "The HTTP status.",
    "Problem.title": "A summary that is the same for every problem of this type.",
    "Problem.type": "A URI reference that identifies the type of the problem: `/problems/` and its name.",
    "Limit.available": "`limit` − `spent` − `held`, at least 0.",
    "Limit.held": "The sum of its open holds, this one included.",
    "Limit.id": "The job or the campaign.",
    "Limit.limit": "Its budget.",
    "Limit.scope": "What the limit belongs to: `job`, `ancestor` (a job above it) or `campaign`.",
    "Projection.name": "The read model.",
    "Projection.position": "Position of the last event that the read model reflects.",
    "Projection.status": "`running`; `failing`: retrying the event in `last_error`; `paused`: stopped by an operator.",
    "Repriced.adjusted": "Number of entries whose cost was adjusted.",
    "Reprice.campaign_id": "Only entries of this campaign.",
    "Reprice.from": "Only calls at this time or later.",
    "Reprice.to": "Only calls before this time.",
    "Receipt.id": "The event's id.",
    "Receipt.limits": "The limits that a hold counts for, with the balances after it; those of now if it is a "
    "duplicate. Only in receipts of `cost.reserved`.",
    "Spend.actor": "The API key that recorded or reserved the costs. Present if grouped by it.",
    "Spend.campaign_name": "The name of the campaign; `null` if it was erased, or if the campaign was deleted. Present "
    "if grouped by `campaign_id`.",
    "Spend.hour": "The start of the hour, as an RFC 3339 time with the zone's offset. Present if grouped by it.",
    "Spend.month": "The month, YYYY-MM. Present if grouped by it.",
    "Spend.unpriced": "Number of budget entries whose cost is not known yet, and counts as 0; with `basis=booked`, of "
    "those whose cost was not known when they were booked.",
    "Spend.week": "The ISO week, YYYY-Www. Present if grouped by it.",
    "Spend.currency": "ISO 4217 code; there is a sum for each currency.",
}
"""Fields of requests and responses."""


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
