"""Database roles ledger_owner, ledger_service, ledger_reader, without login; row level security.

Roles belong to the whole server, not to one database. Missing roles are created if the migrating user may create roles;
everything else works without them. After an administrator has created them, `CALL ledger.grant_roles()` as the owner
does the rest.

Revision: 0004, after 0003.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# If the schema `public` is reachable from the network (Supabase), only row level security protects the tables.
ROW_SECURITY = """
ALTER TABLE public.agent_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.alembic_version ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.budget_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.campaigns ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.content_assets ENABLE ROW LEVEL SECURITY
"""

# The service may not update events. The trigger compares all columns and allows only this erasure. A caller of the
# function can choose neither the new values nor the search path.
ERASE_TEXT = """
CREATE FUNCTION ledger.erase_text(p_position bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ledger.events SET text = NULL, text_salt = NULL WHERE position = p_position AND text IS NOT NULL;
    RETURN FOUND;
END $$;
"""

# Roles belong to the whole server: a migration of another database may create them at the same time.
# A superuser may act as any role. Other users must be members of the owner role to transfer ownership to it, and must
# inherit from it to keep access. Objects of other users stay theirs.
# Without an owner role, the migrating user owns the tables of later migrations, so its default privileges must not
# grant access to them. With one, later migrations run as the owner, and default privileges are not changed.
GRANT_ROLES = """
CREATE PROCEDURE ledger.grant_roles() LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
    missing text[] := '{}';
    is_handed_over boolean;
BEGIN
    FOREACH name IN ARRAY ARRAY['ledger_owner', 'ledger_service', 'ledger_reader'] LOOP
        CONTINUE WHEN to_regrole(name) IS NOT NULL;
        BEGIN
            EXECUTE 'CREATE ROLE ' || name || ' NOLOGIN';
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN missing := missing || name;
        END;
    END LOOP;
    IF cardinality(missing) > 0 THEN
        RAISE WARNING USING MESSAGE = current_user || ' may not make roles, so these are left out: '
            || array_to_string(missing, ', ') || '. Have an administrator make them (CREATE ROLE '
            || array_to_string(missing, ' NOLOGIN; CREATE ROLE ') || ' NOLOGIN), then: CALL ledger.grant_roles()';
    END IF;

    FOR name IN
        SELECT 'PUBLIC'
        UNION ALL
        SELECT rolname::text FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
    LOOP
        EXECUTE 'REVOKE ALL ON SCHEMA ledger FROM ' || name;
        EXECUTE 'REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM ' || name;
        EXECUTE 'REVOKE ALL ON ALL SEQUENCES IN SCHEMA ledger FROM ' || name;
        EXECUTE 'REVOKE ALL ON ALL ROUTINES IN SCHEMA ledger FROM ' || name;
        EXECUTE 'REVOKE ALL ON public.agent_jobs, public.alembic_version, public.budget_entries, public.campaigns, '
            'public.content_assets FROM ' || name;
        IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'USAGE') THEN
            EXECUTE 'REVOKE CREATE ON SCHEMA public FROM ' || name;
        END IF;
    END LOOP;

    IF to_regrole('ledger_service') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA ledger, public TO ledger_service;
        GRANT SELECT, INSERT ON ledger.events, ledger.campaign_events, ledger.content_events, ledger.job_events,
            ledger.cost_events, ledger.ledger_events TO ledger_service;
        GRANT SELECT, INSERT, UPDATE ON ledger.accounts, ledger.api_keys, ledger.log_tiles, ledger.streams
            TO ledger_service;
        GRANT SELECT, INSERT, DELETE ON ledger.holds TO ledger_service;
        GRANT SELECT, UPDATE ON ledger.log_checkpoint, ledger.log_head, ledger.projection_checkpoints
            TO ledger_service;
        GRANT EXECUTE ON FUNCTION ledger.lock_and_load, ledger.erase_text TO ledger_service;
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.agent_jobs, public.budget_entries, public.campaigns,
            public.content_assets TO ledger_service;
        GRANT SELECT ON public.alembic_version TO ledger_service;
        FOREACH name IN ARRAY ARRAY['agent_jobs', 'alembic_version', 'budget_entries', 'campaigns', 'content_assets']
        LOOP
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_policies
                WHERE schemaname = 'public' AND tablename = name AND policyname = 'ledger_service'
            );
            EXECUTE 'CREATE POLICY ledger_service ON public.' || name
                || ' TO ledger_service USING (true) WITH CHECK (true)';
        END LOOP;
    END IF;

    IF to_regrole('ledger_reader') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO ledger_reader;
        GRANT SELECT ON public.agent_jobs, public.budget_entries, public.campaigns, public.content_assets
            TO ledger_reader;
        FOREACH name IN ARRAY ARRAY['agent_jobs', 'budget_entries', 'campaigns', 'content_assets'] LOOP
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_policies
                WHERE schemaname = 'public' AND tablename = name AND policyname = 'ledger_reader'
            );
            EXECUTE 'CREATE POLICY ledger_reader ON public.' || name || ' FOR SELECT TO ledger_reader USING (true)';
        END LOOP;
    END IF;

    is_handed_over := current_user = 'ledger_owner';
    IF to_regrole('ledger_owner') IS NOT NULL AND NOT is_handed_over THEN
        BEGIN
            IF NOT pg_has_role('ledger_owner', 'USAGE') THEN
                GRANT ledger_owner TO CURRENT_USER;
            END IF;
            IF pg_has_role('ledger_owner', 'USAGE') THEN
                GRANT USAGE, CREATE ON SCHEMA public TO ledger_owner;
                IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger')
                    = (SELECT oid FROM pg_roles WHERE rolname = current_user)
                THEN
                    ALTER SCHEMA ledger OWNER TO ledger_owner;
                    FOR name IN
                        SELECT 'TABLE ' || oid::regclass FROM pg_class
                        WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
                            OR oid IN ('public.agent_jobs'::regclass, 'public.alembic_version'::regclass,
                                'public.budget_entries'::regclass, 'public.campaigns'::regclass,
                                'public.content_assets'::regclass)
                        UNION ALL
                        SELECT 'ROUTINE ' || oid::regprocedure FROM pg_proc
                        WHERE pronamespace = 'ledger'::regnamespace
                    LOOP
                        EXECUTE 'ALTER ' || name || ' OWNER TO ledger_owner';
                    END LOOP;
                END IF;
                ALTER DEFAULT PRIVILEGES FOR ROLE ledger_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
                is_handed_over := (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger')
                    = to_regrole('ledger_owner')::oid;
            END IF;
        EXCEPTION WHEN insufficient_privilege THEN
            is_handed_over := false;
        END;
        IF NOT is_handed_over THEN
            RAISE WARNING USING MESSAGE = current_user || ' may not hand everything over to ledger_owner: what belongs '
                'to whom stays as it is. To change that, have an administrator say GRANT ledger_owner TO '
                || quote_ident(current_user) || ', then: CALL ledger.grant_roles()';
        END IF;
    END IF;

    IF NOT is_handed_over THEN
        FOR name IN
            SELECT rolname::text FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
        LOOP
            EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM ' || name;
            EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM ' || name;
            EXECUTE 'ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON ROUTINES FROM ' || name;
        END LOOP;
    END IF;
END $$;
"""

# Migrations after this one run as the owner, so that it owns their objects. For runs that begin after this revision,
# `alembic/env.py` does the same.
WORK_AS_OWNER = """
DO $$ BEGIN
    IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger') = to_regrole('ledger_owner')::oid THEN
        SET LOCAL ROLE ledger_owner;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$
"""

TAKE_BACK = """
DO $$
DECLARE
    name text;
    owned text[] := ARRAY(
        SELECT 'TABLE ' || oid::regclass FROM pg_class
        WHERE relkind IN ('r', 'p', 'v', 'm') AND relowner = to_regrole('ledger_owner')::oid
            AND (relnamespace = 'ledger'::regnamespace OR oid IN ('public.agent_jobs'::regclass,
                'public.alembic_version'::regclass, 'public.budget_entries'::regclass, 'public.campaigns'::regclass,
                'public.content_assets'::regclass))
        UNION ALL
        SELECT 'ROUTINE ' || oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'ledger'::regnamespace AND proowner = to_regrole('ledger_owner')::oid
    );
BEGIN
    IF to_regrole('ledger_owner') IS NOT NULL AND current_user <> 'ledger_owner' THEN
        IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger') = to_regrole('ledger_owner')::oid THEN
            ALTER SCHEMA ledger OWNER TO CURRENT_USER;
        END IF;
        FOREACH name IN ARRAY owned LOOP
            EXECUTE 'ALTER ' || name || ' OWNER TO CURRENT_USER';
        END LOOP;
        IF pg_has_role('ledger_owner', 'USAGE') THEN
            ALTER DEFAULT PRIVILEGES FOR ROLE ledger_owner GRANT EXECUTE ON ROUTINES TO PUBLIC;
        END IF;
    END IF;
    FOR name IN
        SELECT rolname::text FROM pg_roles WHERE rolname IN ('ledger_owner', 'ledger_service', 'ledger_reader')
            AND rolname <> current_user
    LOOP
        EXECUTE 'REVOKE ALL ON SCHEMA ledger, public FROM ' || name;
        EXECUTE 'REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM ' || name;
        EXECUTE 'REVOKE ALL ON ALL ROUTINES IN SCHEMA ledger FROM ' || name;
        EXECUTE 'REVOKE ALL ON public.agent_jobs, public.alembic_version, public.budget_entries, public.campaigns, '
            'public.content_assets FROM ' || name;
    END LOOP;
    FOR name IN
        SELECT quote_ident(policyname) || ' ON public.' || quote_ident(tablename) FROM pg_policies
        WHERE schemaname = 'public' AND policyname IN ('ledger_service', 'ledger_reader')
    LOOP
        EXECUTE 'DROP POLICY ' || name;
    END LOOP;
END $$
"""

OPEN_AGAIN = """
DROP PROCEDURE ledger.grant_roles();
DROP FUNCTION ledger.erase_text(bigint);
GRANT EXECUTE ON FUNCTION ledger.lock_and_load, ledger.refuse_change TO PUBLIC;
ALTER TABLE public.agent_jobs DISABLE ROW LEVEL SECURITY;
ALTER TABLE public.alembic_version DISABLE ROW LEVEL SECURITY;
ALTER TABLE public.budget_entries DISABLE ROW LEVEL SECURITY;
ALTER TABLE public.campaigns DISABLE ROW LEVEL SECURITY;
ALTER TABLE public.content_assets DISABLE ROW LEVEL SECURITY
"""


def upgrade() -> None:
    for statement in ROW_SECURITY.strip().split(";\n"):
        op.execute(statement)
    op.execute(ERASE_TEXT)
    op.execute(GRANT_ROLES)
    op.execute("CALL ledger.grant_roles()")
    op.execute(WORK_AS_OWNER)


def downgrade() -> None:
    # The roles stay: other databases of the server may use them, and dropping a role drops its memberships. Privileges
    # on `public` that were revoked from PUBLIC and from the roles of a hosted API are not granted again.
    op.execute("SET LOCAL ROLE NONE")
    op.execute(TAKE_BACK)
    for statement in OPEN_AGAIN.strip().split(";\n"):
        op.execute(statement)
