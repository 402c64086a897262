"""Who the service is in the database: in `ledger_service`, as it should be, or somebody who may do more, or less."""

from typing import TYPE_CHECKING

import msgspec

from ledger.database import Connection

if TYPE_CHECKING:
    pass

ROLES = ("ledger_owner", "ledger_service", "ledger_reader")
"""Fixed names, made by migration 0004. None of them can log in."""

# Objects are named by their oid only: whoever may see nothing shall be told so. Before PostgreSQL 16 whoever may make
# roles may enter any of them.
READ = """
SELECT current_user::text AS name, me.rolsuper AS is_superuser,
    pg_has_role(log.nspowner, 'MEMBER')
        OR current_setting('server_version_num')::int < 160000 AND me.rolcreaterole AS is_owner,
    coalesce(pg_has_role(service.oid, 'USAGE'), false) AS is_service,
    coalesce(has_schema_privilege(service.oid, log.oid, 'USAGE'), false) AS are_granted,
    ARRAY(SELECT name FROM unnest($1::text[]) AS name WHERE to_regrole(name) IS NULL) AS missing
FROM pg_namespace AS log
JOIN pg_roles AS me ON me.rolname = current_user
LEFT JOIN pg_roles AS service ON service.rolname = 'ledger_service'
WHERE log.nspname = 'ledger'
"""

LOGIN = "CREATE ROLE app LOGIN PASSWORD '…' IN ROLE ledger_service"


class RoleStatus(msgspec.Struct, frozen=True):
    """Who a connection is, and what becomes of the roles here. `missing`: those that no migration could make."""

    name: str
    is_superuser: bool
    is_owner: bool
    is_service: bool
    are_granted: bool
    missing: list[str]

    def problem(self) -> str | None:
        """In plain words why the service cannot work as this user; None where it can."""
        if self.is_superuser or self.is_owner or self.is_service:
            return None
        grant = f'GRANT ledger_service TO "{self.name}"'
        return f"{self.name} is no member of ledger_service: {self._remedy(grant)}"

    def warning(self) -> str | None:
        """In plain words what this user may do that the service need not; None where there is nothing."""
        if not (self.is_superuser or self.is_owner):
            return None
        who = "a superuser" if self.is_superuser else "the owner of the tables"
        remedy = f"{LOGIN}. Put that user into DATABASE_URL and {self.name} into DIRECT_DATABASE_URL"
        return (
            f"{self.name} is {who} and may change what is in the log. Give the service a user of its own: "
            f"{self._remedy(remedy)}"
        )

    def _remedy(self, last: str) -> str:
        steps = [f"CREATE ROLE {name} NOLOGIN" for name in self.missing]
        if self.missing or not self.are_granted:
            steps.append("(as the owner) CALL ledger.grant_roles()")
        return "; ".join([*steps, last])


async def read_role_status(connection: Connection) -> RoleStatus | None:
    """Read who this connection is; None where the log is not there yet."""
    row = await connection.fetchrow(READ, ROLES)
    return RoleStatus(*row) if row is not None else None
