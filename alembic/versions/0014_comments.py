"""Comments on the read models and all of their columns: business tools show them.

Revision: 0014, after 0013.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

COMMENTS = {
    "campaigns": (
        "Campaigns: budget, spend, held money and results. One row each; deleted campaigns have none.",
        {
            "id": "The id of the stream whose events the row is made of.",
            "name": "Its name; empty if erased.",
            "description": "What it is about; null if none was given, or if it was erased.",
            "status": "draft, active, paused, completed or archived.",
            "budget": "The limit of spend and held money, in `currency`; null: no limit.",
            "spend": "The sum of the costs of its budget entries, in `currency`; negative if credits exceed them.",
            "held": "The sum of its open holds, in `currency`.",
            "currency": "ISO 4217 code of all its amounts.",
            "start_date": "When it starts.",
            "end_date": "When it ends; null: open end.",
            "impressions": "Impressions recorded so far.",
            "clicks": "Clicks recorded so far.",
            "conversions": "Conversions recorded so far.",
            "revenue": "Revenue recorded so far, in `currency`.",
            "roi": "(revenue - spend) / spend, rounded to 10 decimals; 0 unless spend is more than 0.",
            "labels": "Its labels, which all its jobs and entries have too.",
            "created_at": "When the first event was recorded.",
            "updated_at": "When the last event that changed the row was recorded.",
            "position": "The position in the log of that last event.",
        },
    ),
    "content_assets": (
        "Pieces of content with their status. Deleted assets have no row.",
        {
            "id": "The id of the stream whose events the row is made of.",
            "title": "Its title; empty if erased.",
            "content": "The text itself; empty if erased.",
            "content_type": "The kind of content, such as blog.",
            "status": "draft, review, approved, published or archived.",
            "metadata": "Any further data, as sent; {} if erased.",
            "campaign_id": "The campaign that it belongs to.",
            "agent_job_id": "The job that made it.",
            "created_at": "When the first event was recorded.",
            "updated_at": "When the last event that changed the row was recorded.",
            "position": "The position in the log of that last event.",
        },
    ),
    "agent_jobs": (
        "Jobs of agents: status, cost, and place in the tree of jobs. Deleted jobs have no row.",
        {
            "id": "The id of the stream whose events the row is made of.",
            "agent_type": "The kind of agent, such as researcher.",
            "status": "pending, running, completed, failed or cancelled.",
            "input_data": "What the job was given; {} if erased.",
            "output_data": "What the job produced; null before, if there was nothing, or if erased.",
            "started_at": "When it started; null before.",
            "completed_at": "When it was completed, failed or cancelled; null before.",
            "error_message": "Why it failed; null unless it did, or if erased.",
            "retry_count": "How often it was queued again after it had failed.",
            "tokens_used": "Tokens of its own budget entries.",
            "cost": "The sum of the costs of its own budget entries, in `currency`.",
            "held": "The sum of its own open holds, in `currency`.",
            "campaign_id": "The campaign that it counts for.",
            "budget": "The most that it and the jobs below it may spend, in `currency`; null: no limit of its own.",
            "currency": "ISO 4217 code of all its amounts.",
            "progress": "From 0 to 1, as last reported.",
            "actor": "The API key that queued or recorded it.",
            "agent_name": "The name of the agent, as distinct from its kind.",
            "parent_job_id": "The job that started it.",
            "root_job_id": "The first job of its tree; its own id there.",
            "tree_cost": "Its cost and that of all jobs below it, in `currency`.",
            "labels": "The labels of its campaign and its own.",
            "trace_id": "W3C trace id.",
            "created_at": "When the first event was recorded.",
            "updated_at": "When the last event that changed the row was recorded.",
            "position": "The position in the log of that last event.",
        },
    ),
    "budget_entries": (
        "Costs, credits and holds of money. One row each, never deleted.",
        {
            "id": "The id of the stream whose events the row is made of.",
            "resource_type": "What the money was spent on, such as llm_api.",
            "status": "held, settled, released or expired; only settled entries cost.",
            "cost": "What was spent, adjustments included, in `currency`; negative for a credit, 0 while unpriced.",
            "tokens_used": "Tokens as reported, or input and output tokens together.",
            "model_used": "The model, as the provider names it.",
            "description": "What it was for; null if none was given, or if it was erased.",
            "agent_job_id": "The job that it counts for.",
            "campaign_id": "The campaign that it counts for.",
            "held": "What an open hold reserves, in `currency`.",
            "currency": "ISO 4217 code of its amounts.",
            "provider": "Who is paid.",
            "occurred_at": "When the money was spent; until then, when it was reserved.",
            "expires_at": "When its hold expires or would have expired.",
            "actor": "The API key that recorded or reserved it.",
            "input_tokens": "Input tokens, cached ones included; null if not reported.",
            "output_tokens": "Output tokens, reasoning included; null if not reported.",
            "cache_read_tokens": "Input tokens read from a cache; null if not reported.",
            "cache_write_tokens": "Input tokens written to a cache; null if not reported.",
            "reasoning_tokens": "Output tokens of reasoning; null if not reported.",
            "usage": "All counters of the call as reported; null if none were.",
            "service_tier": "standard, batch, flex or priority; null if not reported.",
            "response_id": "The provider's id of its reply.",
            "labels": "The labels of its campaign, of its job, and its own.",
            "trace_id": "W3C trace id.",
            "adjusted": "The sum of its adjustments, which `cost` includes, in `currency`.",
            "unpriced": "True while its cost is unknown: usage was reported, and no price was found.",
            "price_position": "The position of the price event by which its cost was computed; null if it was sent.",
            "created_at": "When the first event was recorded.",
            "updated_at": "When the last event that changed the row was recorded.",
            "position": "The position in the log of that last event.",
        },
    ),
}
"""By table: its comment, and those of its columns."""


def comment(target: str, text: str | None) -> None:
    """Set the comment on a table or column; None removes it."""
    value = "NULL" if text is None else "'" + text.replace("'", "''") + "'"
    op.execute(f"COMMENT ON {target} IS {value}")


def upgrade() -> None:
    for table, (text, columns) in COMMENTS.items():
        comment(f"TABLE {table}", text)
        for name, column_text in columns.items():
            comment(f"COLUMN {table}.{name}", column_text)


def downgrade() -> None:
    for table, (_, columns) in COMMENTS.items():
        comment(f"TABLE {table}", None)
        for name in columns:
            comment(f"COLUMN {table}.{name}", None)
