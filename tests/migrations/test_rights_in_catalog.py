"""Privileges on all objects of the migrations: a table of a later migration must be granted too."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.log.tables import PARTITIONS
from tests.log.helpers import connected

READ_MODELS = ("agent_jobs", "budget_entries", "campaigns", "content_assets", "cost_postings", "denied_holds", "prices")
VIEWS = ("campaign_health", "spend_daily")
ALL = {"SELECT", "INSERT", "UPDATE", "DELETE"}

SERVICE = {
    **{f"ledger.{table}": {"SELECT", "INSERT"} for table in ("events", *PARTITIONS)},
    **{f"ledger.{table}": ALL - {"DELETE"} for table in ("accounts", "api_keys", "log_tiles", "streams")},
    **{
        f"ledger.{table}": {"SELECT", "UPDATE"}
        for table in ("log_checkpoint", "log_head", "projection_checkpoints", "reverification")
    },
    "ledger.holds": ALL - {"UPDATE"},
    "ledger.entries": ALL - {"DELETE"},
    "ledger.pending_releases": ALL,
    "ledger.idempotency_keys": ALL,
    "ledger.idempotency_secret": {"SELECT"},
    **{f"public.{table}": ALL for table in READ_MODELS},
    **{f"public.{view}": {"SELECT"} for view in VIEWS},
    "public.alembic_version": {"SELECT"},
}
READER = {f"public.{table}": {"SELECT"} for table in (*READ_MODELS, *VIEWS)}

TABLES = """
SELECT nspname || '.' || relname AS name, pg_class.oid, relkind, relrowsecurity, relforcerowsecurity, reloptions,
    pg_get_userbyid(relowner) AS owner
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname IN ('ledger', 'public') AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY 1
"""

# Table privileges; the tests check separately that there are no column privileges.
GRANTED = """
SELECT nspname || '.' || relname AS name, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END AS role,
    array_agg(DISTINCT privilege_type) AS privileges, bool_or(is_grantable) AS is_grantable
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace, aclexplode(relacl) AS granted
WHERE nspname IN ('ledger', 'public') AND grantee <> relowner GROUP BY 1, 2
"""

ROUTINES = """
SELECT proname AS name, prosecdef AS is_definer, proconfig AS config, pg_get_userbyid(proowner) AS owner,
    ARRAY(SELECT grantee::regrole::text FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE grantee <> proowner) AS callers
FROM pg_proc WHERE pronamespace IN ('ledger'::regnamespace, 'public'::regnamespace) ORDER BY 1
"""


@pytest.fixture
async def catalog(database_url: URL) -> AsyncIterator[Any]:
    async with connected(database_url) as connection:
        yield connection


async def test_each_role_has_exactly_the_expected_privileges_on_each_table(catalog: Any) -> None:
    granted: dict[str, dict[str, set[str]]] = {"ledger_service": {}, "ledger_reader": {}}
    for row in await catalog.fetch(GRANTED):
        granted.setdefault(row["role"], {})[row["name"]] = set(row["privileges"])
        assert not row["is_grantable"]

    assert granted == {"ledger_service": SERVICE, "ledger_reader": READER}
    assert {row["name"] for row in await catalog.fetch(TABLES)} == set(SERVICE)
    assert (
        await catalog.fetchval("SELECT count(*) FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid > 16384") == 0
    )


async def test_every_table_in_public_has_row_security_and_a_policy_for_each_role(catalog: Any) -> None:
    relations = [row for row in await catalog.fetch(TABLES) if row["name"].startswith("public.")]
    tables = [row for row in relations if row["relkind"] != b"v"]

    policies = {
        (f"public.{row['tablename']}", row["policyname"]): (row["roles"], row["cmd"], row["qual"], row["with_check"])
        for row in await catalog.fetch("SELECT * FROM pg_policies")
    }

    assert [row["name"] for row in tables if not row["relrowsecurity"] or row["relforcerowsecurity"]] == []
    assert policies == {
        **{(row["name"], "ledger_service"): (["ledger_service"], "ALL", "true", "true") for row in tables},
        **{(f"public.{table}", "ledger_reader"): (["ledger_reader"], "SELECT", "true", None) for table in READ_MODELS},
    }


async def test_views_use_the_privileges_of_the_invoker(catalog: Any) -> None:
    await catalog.execute("CREATE VIEW public.unsafe AS SELECT 1 AS one")

    views = [row for row in await catalog.fetch(TABLES) if row["relkind"] in (b"v", b"m")]
    unsafe = [row["name"] for row in views if "security_invoker=true" not in (row["reloptions"] or ())]

    # The view created above shows that this test detects such views.
    assert unsafe == ["public.unsafe"]


async def test_only_the_service_may_call_functions_and_security_definers_have_a_fixed_search_path(
    catalog: Any,
) -> None:
    routines = await catalog.fetch(ROUTINES)

    callers = {row["name"]: row["callers"] for row in routines}
    without_path = [row["name"] for row in routines if row["is_definer"] and not _has_fixed_path(row["config"])]

    assert callers == {
        "append_events": ["ledger_service"],
        "claim_idempotency_key": ["ledger_service"],
        "erase_text": ["ledger_service"],
        "grant_roles": [],
        "grant_roles_0004": [],
        "grant_roles_0006": [],
        "grant_roles_0009": [],
        "grant_roles_0016": [],
        "grant_roles_0017": [],
        "load_state": ["ledger_service"],
        "load_prices": ["ledger_service"],
        "lock_and_load": ["ledger_service"],
        "lock_and_load_state": ["ledger_service"],
        "refuse_change": [],
        "refuse_older_version": [],
        "skip_row": [],
        "store_states": ["ledger_service"],
    }
    assert (without_path, [row["name"] for row in routines if row["is_definer"]]) == ([], ["erase_text"])


def _has_fixed_path(config: list[str] | None) -> bool:
    return "search_path=pg_catalog, pg_temp" in (config or ())


async def test_everything_belongs_to_a_role_that_cannot_log_in(catalog: Any) -> None:
    owners = {row["owner"] for row in [*await catalog.fetch(TABLES), *await catalog.fetch(ROUTINES)]}
    schema_owner = await catalog.fetchval("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'ledger'")
    attributes = await catalog.fetch(
        "SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication "
        "FROM pg_roles WHERE rolname LIKE 'ledger\\_%'"
    )

    assert owners | {schema_owner} == {"ledger_owner"}
    assert {name for name, *_ in attributes} == {"ledger_owner", "ledger_service", "ledger_reader"}
    assert not any(any(flags) for _, *flags in attributes)


async def test_other_users_may_create_nothing_in_either_schema(catalog: Any) -> None:
    granted = await catalog.fetch("""
        SELECT nspname, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END AS role, privilege_type
        FROM pg_namespace, aclexplode(nspacl) WHERE nspname IN ('ledger', 'public') AND grantee <> nspowner
    """)

    privileges = {tuple(row) for row in granted}

    # Other applications may have tables in `public`, so the schema stays usable; the tables of the ledger are closed.
    assert privileges == {
        ("ledger", "ledger_service", "USAGE"),
        ("public", "PUBLIC", "USAGE"),
        ("public", "ledger_owner", "CREATE"),
        ("public", "ledger_owner", "USAGE"),
        ("public", "ledger_reader", "USAGE"),
        ("public", "ledger_service", "USAGE"),
    }
