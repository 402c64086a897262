"""Tables of the four read models: campaigns, content assets, agent jobs, budget entries.

Revision: 0002, after 0001.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE campaigns (
    id uuid NOT NULL,
    name varchar(255) NOT NULL,
    description varchar(1000),
    status varchar(32) DEFAULT 'draft' NOT NULL,
    budget numeric(20, 10) NOT NULL,
    spend numeric(38, 10) DEFAULT 0 NOT NULL,
    held numeric(38, 10) DEFAULT 0 NOT NULL,
    currency char(3) NOT NULL,
    start_date timestamptz NOT NULL,
    end_date timestamptz,
    impressions bigint DEFAULT 0 NOT NULL,
    clicks bigint DEFAULT 0 NOT NULL,
    conversions bigint DEFAULT 0 NOT NULL,
    revenue numeric(38, 10) DEFAULT 0 NOT NULL,
    roi numeric DEFAULT 0 NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT campaigns_pkey PRIMARY KEY (id),
    CONSTRAINT campaigns_status_check CHECK (status IN ('draft', 'active', 'paused', 'completed', 'archived')),
    CONSTRAINT campaigns_budget_check CHECK (budget >= 0),
    CONSTRAINT campaigns_spend_check CHECK (spend >= 0),
    CONSTRAINT campaigns_held_check CHECK (held >= 0)
);
CREATE INDEX campaigns_name_idx ON campaigns (name);
CREATE INDEX campaigns_newest_first_idx ON campaigns (created_at DESC, id);
CREATE INDEX campaigns_status_idx ON campaigns (status);

CREATE TABLE agent_jobs (
    id uuid NOT NULL,
    agent_type varchar(32) NOT NULL,
    status varchar(32) DEFAULT 'pending' NOT NULL,
    input_data json NOT NULL,
    output_data json,
    started_at timestamptz,
    completed_at timestamptz,
    error_message text,
    retry_count integer DEFAULT 0 NOT NULL,
    tokens_used bigint DEFAULT 0 NOT NULL,
    cost numeric(38, 10) DEFAULT 0 NOT NULL,
    held numeric(38, 10) DEFAULT 0 NOT NULL,
    campaign_id uuid,
    budget numeric(20, 10),
    currency char(3) NOT NULL,
    progress numeric(20, 10),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT agent_jobs_pkey PRIMARY KEY (id),
    CONSTRAINT agent_jobs_agent_type_check
        CHECK (agent_type IN ('seo_writer', 'email_marketer', 'social_media', 'analyst', 'optimizer')),
    CONSTRAINT agent_jobs_status_check CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    CONSTRAINT agent_jobs_cost_check CHECK (cost >= 0),
    CONSTRAINT agent_jobs_held_check CHECK (held >= 0),
    CONSTRAINT agent_jobs_tokens_used_check CHECK (tokens_used >= 0),
    CONSTRAINT agent_jobs_progress_check CHECK (progress BETWEEN 0 AND 1),
    CONSTRAINT agent_jobs_campaign_id_fkey FOREIGN KEY (campaign_id) REFERENCES campaigns (id) ON DELETE SET NULL
);
CREATE INDEX agent_jobs_agent_type_idx ON agent_jobs (agent_type);
CREATE INDEX agent_jobs_campaign_id_idx ON agent_jobs (campaign_id);
CREATE INDEX agent_jobs_newest_first_idx ON agent_jobs (created_at DESC, id);
CREATE INDEX agent_jobs_status_idx ON agent_jobs (status);

CREATE TABLE budget_entries (
    id uuid NOT NULL,
    resource_type varchar(32) NOT NULL,
    status varchar(32) NOT NULL,
    cost numeric(38, 10) DEFAULT 0 NOT NULL,
    tokens_used bigint DEFAULT 0 NOT NULL,
    model_used varchar(100),
    description varchar(500),
    agent_job_id uuid,
    campaign_id uuid,
    held numeric(20, 10) DEFAULT 0 NOT NULL,
    currency char(3) NOT NULL,
    provider varchar(100),
    occurred_at timestamptz NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT budget_entries_pkey PRIMARY KEY (id),
    CONSTRAINT budget_entries_resource_type_check
        CHECK (resource_type IN ('openai_api', 'web_search', 'file_search',
            'image_generation', 'embedding', 'llm_api', 'media', 'other')),
    CONSTRAINT budget_entries_status_check CHECK (status IN ('held', 'settled', 'released', 'expired')),
    CONSTRAINT budget_entries_cost_check CHECK (cost >= 0),
    CONSTRAINT budget_entries_tokens_used_check CHECK (tokens_used >= 0),
    CONSTRAINT budget_entries_held_check CHECK (CASE status WHEN 'held' THEN held > 0 AND cost = 0 ELSE held = 0 END),
    CONSTRAINT budget_entries_expires_at_check CHECK (status <> 'held' OR expires_at IS NOT NULL),
    CONSTRAINT budget_entries_agent_job_id_fkey FOREIGN KEY (agent_job_id) REFERENCES agent_jobs (id) ON DELETE CASCADE
);
CREATE INDEX budget_entries_agent_job_id_idx ON budget_entries (agent_job_id);
CREATE INDEX budget_entries_campaign_id_occurred_at_idx ON budget_entries (campaign_id, occurred_at);
CREATE INDEX budget_entries_model_used_idx ON budget_entries (model_used);
CREATE INDEX budget_entries_newest_first_idx ON budget_entries (created_at DESC, id);
CREATE INDEX budget_entries_occurred_at_idx ON budget_entries (occurred_at);
CREATE INDEX budget_entries_resource_type_idx ON budget_entries (resource_type);
CREATE INDEX budget_entries_status_idx ON budget_entries (status);

CREATE TABLE content_assets (
    id uuid NOT NULL,
    title varchar(500) NOT NULL,
    content text NOT NULL,
    content_type varchar(32) NOT NULL,
    status varchar(32) DEFAULT 'draft' NOT NULL,
    metadata json DEFAULT '{}'::json NOT NULL,
    campaign_id uuid,
    agent_job_id uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT content_assets_pkey PRIMARY KEY (id),
    CONSTRAINT content_assets_content_type_check
        CHECK (content_type IN ('blog', 'email', 'social', 'video_script', 'ad_copy', 'landing_page')),
    CONSTRAINT content_assets_status_check CHECK (status IN ('draft', 'review', 'approved', 'published', 'archived')),
    CONSTRAINT content_assets_campaign_id_fkey FOREIGN KEY (campaign_id) REFERENCES campaigns (id) ON DELETE SET NULL,
    CONSTRAINT content_assets_agent_job_id_fkey FOREIGN KEY (agent_job_id) REFERENCES agent_jobs (id) ON DELETE SET NULL
);
CREATE INDEX content_assets_agent_job_id_idx ON content_assets (agent_job_id);
CREATE INDEX content_assets_campaign_id_idx ON content_assets (campaign_id);
CREATE INDEX content_assets_content_type_idx ON content_assets (content_type);
CREATE INDEX content_assets_newest_first_idx ON content_assets (created_at DESC, id);
CREATE INDEX content_assets_status_idx ON content_assets (status);
CREATE INDEX content_assets_title_idx ON content_assets (title);
"""


# After a downgrade to 0001 the checkpoint still has the position of the tables that were dropped.
FOLD_FROM_START = """
UPDATE ledger.projection_checkpoints SET position = 0, status = 'running', last_error = NULL WHERE position > 0
"""


def upgrade() -> None:
    for statement in TABLES.strip().split(";\n"):
        op.execute(statement)
    op.execute(FOLD_FROM_START)


def downgrade() -> None:
    op.execute("DROP TABLE budget_entries, content_assets, agent_jobs, campaigns")
