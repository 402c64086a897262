"""Database roles: whether the connected user is in `ledger_service`, or has more or fewer privileges."""

import msgspec

from ledger.database import Connection

ROLES = ("ledger_owner", "ledger_service", "ledger_reader")
"""Group roles with fixed names, created by migration 0004. None of them can log in."""

# Objects are addressed by oid, so that the query also works for a user without any privileges. Before PostgreSQL 16, a
# user with CREATEROLE may grant itself membership in any role.
READ_STATUS = """
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

CREATE_LOGIN = "CREATE ROLE app LOGIN PASSWORD '…' IN ROLE ledger_service"


class RoleStatus(msgspec.Struct, frozen=True):
    """The user of a connection and its roles. `missing`: the roles that the migration could not create."""

    name: str
    is_superuser: bool
    is_owner: bool
    is_service: bool
    are_granted: bool
    missing: list[str]

    def problem(self) -> str | None:
        """Return why the service cannot work as this user and how to fix it; None if it can."""
        if self.is_superuser or self.is_owner or self.is_service:
            return None
        grant = f'GRANT ledger_service TO "{self.name}"'
        return f"{self.name} is not a member of ledger_service. Next: {self._remedy(grant)}"

    def warning(self) -> str | None:
        """Return what this user may do that the service need not, and how to fix it; None if there is nothing."""
        if not (self.is_superuser or self.is_owner):
            return None
        privilege = "a superuser" if self.is_superuser else "the owner of the tables"
        remedy = (
            f"{CREATE_LOGIN}. Use that user in DATABASE_URL, and {self.name} only in DIRECT_DATABASE_URL of `ledger "
            "migrate`"
        )
        return (
            f"{self.name} is {privilege} and could change recorded events. Next: give the service a separate user: "
            f"{self._remedy(remedy)}"
        )

    def _remedy(self, last: str) -> str:
        steps = [f"CREATE ROLE {name} NOLOGIN" for name in self.missing]
        if self.missing or not self.are_granted:
            steps.append("(as the owner) CALL ledger.grant_roles()")
        return "; ".join([*steps, last])


async def read_role_status(connection: Connection) -> RoleStatus | None:
    """Read the status of the connected user; None if the database has no schema `ledger` yet."""
    row = await connection.fetchrow(READ_STATUS, ROLES)
    return RoleStatus(*row) if row is not None else None
