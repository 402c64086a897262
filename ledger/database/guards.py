"""Guards of the tables (triggers, constraints, functions, privileges), compared with the migrations.

`alembic/guards.json` lists the guards that the migrations make; `scripts/update_guards.py` writes it. A database is
compared with that list, so that a guard that was disabled, dropped, replaced or added is found.
"""

import re
from collections.abc import Sequence

import msgspec

from ledger.database import Connection
from ledger.database.migrations import migrations_folder

RELATIONS = """
SELECT array_agg(nspname || '.' || relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname IN ('ledger', 'public') AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""

# Definitions name schemas only if the search path lacks them.
SEARCH_PATH = "SET LOCAL search_path = pg_catalog"

# $1: the relations that belong to the ledger; partitions that were added to them are read too.
# Constraints of kind 'n' (NOT NULL) exist since PostgreSQL 18 only, so columns are read instead. Definitions of views
# are left out, since they differ between versions of PostgreSQL. Internal triggers enforce foreign keys; their names
# differ between databases.
# The tables in `public` can be rebuilt from the log, so an administrator may grant privileges on them to other roles.
# Superusers are left out: they need no privileges.
GUARDS = """
WITH log AS (
    SELECT oid, nspowner, nspacl FROM pg_namespace WHERE nspname = 'ledger'
), relation AS (
    SELECT class.*, nspname || '.' || relname AS name, nspname, parent.name AS parent
    FROM pg_class AS class
    JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
    LEFT JOIN LATERAL (
        SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) AS name,
            bool_or(parent_namespace.nspname || '.' || parent.relname = ANY ($1)) AS is_ours
        FROM pg_inherits
        JOIN pg_class AS parent ON parent.oid = inhparent
        JOIN pg_namespace AS parent_namespace ON parent_namespace.oid = parent.relnamespace
        WHERE inhrelid = class.oid
    ) AS parent ON true
    WHERE class.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND (nspname || '.' || relname = ANY ($1) OR parent.is_ours)
), routine AS (
    SELECT routine.*, CASE prokind WHEN 'p' THEN 'procedure' ELSE 'function' END
        || ' ledger.' || proname || '(' || oidvectortypes(proargtypes) || ')' AS name
    FROM pg_proc AS routine JOIN log ON log.oid = pronamespace WHERE prokind IN ('f', 'p')
), owner AS (
    SELECT 'table ' || name AS name, relowner AS owner FROM relation
    UNION ALL
    SELECT name, proowner FROM routine
), acl AS (
    SELECT 'schema ledger' AS name, false AS is_public, nspowner AS owner, nspacl AS acl FROM log
    UNION ALL
    SELECT 'table ' || name, nspname = 'public', relowner, relacl FROM relation
    UNION ALL
    SELECT 'column ' || name || '.' || attname, nspname = 'public', relowner, attacl
    FROM relation JOIN pg_attribute ON attrelid = relation.oid
    UNION ALL
    SELECT name, false, proowner, coalesce(proacl, acldefault('f', proowner)) FROM routine
), privilege AS (
    SELECT acl.name, is_public, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END AS role,
        privilege_type || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS privilege
    FROM acl, aclexplode(acl)
    WHERE grantee <> owner AND grantee NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)
)
SELECT 'table ' || name AS name,
    CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table' ELSE 'view' END
        || CASE relpersistence WHEN 'u' THEN ', unlogged' ELSE '' END
        || coalesce(', part of ' || parent || coalesce(' ' || pg_get_expr(relpartbound, oid), ''), '') AS definition,
    NULL AS role
FROM relation
UNION ALL
SELECT 'owner of ' || owner.name,
    CASE owner WHEN nspowner THEN 'the owner of the schema' ELSE pg_get_userbyid(owner)::text END, NULL
FROM owner, log
UNION ALL
SELECT 'column ' || name || '.' || attname, 'NOT NULL', NULL
FROM relation JOIN pg_attribute ON attrelid = relation.oid
WHERE attnum > 0 AND attnotnull AND NOT attisdropped AND NOT relispartition
UNION ALL
SELECT 'trigger ' || tgname || ' on ' || name, pg_get_triggerdef(trigger.oid)
    || CASE tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' (disabled)' ELSE ' (enabled ' || tgenabled::text || ')' END, NULL
FROM relation JOIN pg_trigger AS trigger ON tgrelid = relation.oid WHERE NOT tgisinternal
UNION ALL
SELECT 'rule ' || rulename || ' on ' || name, pg_get_ruledef(rule.oid), NULL
FROM relation JOIN pg_rewrite AS rule ON ev_class = relation.oid WHERE rulename <> '_RETURN'
UNION ALL
SELECT 'constraint ' || conname || ' on ' || name, pg_get_constraintdef(con.oid)
    || CASE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgconstraint = con.oid AND tgenabled <> 'O')
        THEN ' (disabled)' ELSE '' END, NULL
FROM relation JOIN pg_constraint AS con ON conrelid = relation.oid WHERE contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL
SELECT 'index ' || indexrelid::regclass, pg_get_indexdef(indexrelid)
    || CASE WHEN indisvalid AND indisready THEN '' ELSE ' (invalid)' END, NULL
FROM relation JOIN pg_index ON indrelid = relation.oid WHERE indisunique
UNION ALL
SELECT name, 'sha256:' || encode(sha256(convert_to(pg_get_functiondef(oid), 'UTF8')), 'hex'), NULL FROM routine
UNION ALL
SELECT 'row level security of ' || name,
    CASE WHEN relrowsecurity THEN 'on' ELSE 'off' END || CASE WHEN relforcerowsecurity THEN ', forced' ELSE '' END, NULL
FROM relation WHERE relkind IN ('r', 'p')
UNION ALL
SELECT 'policy ' || policyname || ' on ' || name,
    concat_ws(' ', permissive, cmd, 'TO', array_to_string(roles, ', '), 'USING', qual, 'WITH CHECK', with_check),
    roles[1]::text
FROM relation JOIN pg_policies AS policy ON schemaname = nspname AND tablename = relname
UNION ALL
SELECT 'privileges of ' || role || ' on ' || name, string_agg(DISTINCT privilege, ', ' ORDER BY privilege), role
FROM privilege
WHERE NOT is_public OR role IN ('PUBLIC', 'anon', 'authenticated', 'service_role') OR role LIKE 'ledger\\_%'
GROUP BY role, name
UNION ALL
SELECT 'attributes of role ' || rolname, concat_ws(', ', CASE WHEN rolsuper THEN 'SUPERUSER' END,
    CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END), NULL
FROM pg_roles
WHERE rolname IN ('ledger_service', 'ledger_reader') AND (rolsuper OR rolbypassrls OR rolcreaterole)
UNION ALL
SELECT 'setting session_replication_role of ' || coalesce(nullif(setrole, 0)::regrole::text, 'the database'),
    split_part(setting, '=', 2), NULL
FROM pg_db_role_setting, unnest(setconfig) AS setting
WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND setting LIKE 'session_replication_role=%'
ORDER BY 1
"""

SHOWN_MAX = 20

NEXT = (
    "Next: find out who changed this, and whether events were changed too (`ledger verify`); then restore it as the "
    "owner of the tables, with the statements of the migrations"
)


_CASTS = re.compile(r"::[a-z ]+(\[\])?")
_PARENTHESES = re.compile(r"\(('[^']*'|ARRAY\[[^\]]*\]|\w+)\)")


class Guard(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A guard: what it is, its definition, and the database role that it is for, if it is for one."""

    name: str
    definition: str
    role: str | None = None


class GuardList(msgspec.Struct):
    """The guards that the migrations up to a revision make; the content of `guards.json`."""

    revision: str
    guards: list[Guard]


def expected_guards() -> GuardList:
    """Return the guards that the migrations of this release make."""
    return msgspec.json.decode((migrations_folder() / "guards.json").read_bytes(), type=GuardList)


async def read_guards(connection: Connection, relations: Sequence[str] | None = None) -> list[Guard]:
    """Read the guards of a database.

    Args:
        connection: of any user; outside any transaction.
        relations: the tables and views of the ledger; None: all in the schemas `ledger` and `public`.

    Returns:
        The guards, by name.
    """
    async with connection.transaction():
        await connection.execute(SEARCH_PATH)
        if relations is None:
            relations = await connection.fetchval(RELATIONS)
        return sorted((Guard(*row) for row in await connection.fetch(GUARDS, relations)), key=lambda guard: guard.name)


async def find_guard_faults(connection: Connection) -> list[str]:
    """Compare the guards of a database with those that the migrations make.

    Args:
        connection: of any user; outside any transaction.

    Returns:
        One sentence for each guard that is missing, different or additional; empty if there is none.
    """
    expected = expected_guards()
    relations = [guard.name.removeprefix("table ") for guard in expected.guards if guard.name.startswith("table ")]
    return compare_guards(expected, await read_guards(connection, relations))


def compare_guards(expected: GuardList, actual: Sequence[Guard]) -> list[str]:
    """Return one sentence for each difference.

    Guards of a role that has none in this database are not missing: the role may not exist on this server.
    """
    wanted, found = _definitions(expected.guards), _definitions(actual)
    roles = {guard.role for guard in actual}
    absent = {guard.name for guard in expected.guards if guard.role not in roles}
    return [
        f"{name}: {found.get(name, 'missing')}, but revision {expected.revision} has {wanted.get(name, 'none')}"
        for name in sorted((wanted.keys() | found.keys()) - (absent - found.keys()))
        if _normalized(wanted.get(name)) != _normalized(found.get(name))
    ]


def describe_faults(faults: Sequence[str]) -> str:
    """Return guard faults as one text with the next step; it lists the first `SHOWN_MAX`."""
    more = [f"{len(faults) - SHOWN_MAX} more"] if len(faults) > SHOWN_MAX else []
    return f"{'; '.join([*faults[:SHOWN_MAX], *more])}. {NEXT}"


def _normalized(definition: str | None) -> str | None:
    """Remove casts, and parentheses around single values, which PostgreSQL writes differently after a restore."""
    if definition is None:
        return None
    shorter, definition = _CASTS.sub("", definition), ""
    while shorter != definition:
        shorter, definition = _PARENTHESES.sub(r"\1", shorter), shorter
    return definition


def _definitions(guards: Sequence[Guard]) -> dict[str, str]:
    return {guard.name: guard.definition for guard in guards}
