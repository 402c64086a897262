"""ledger keys: who may use the API."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import click
import msgspec
from sqlalchemy import URL

from ledger import keys as api_keys
from ledger.cli.common import (
    home_option,
    json_option,
    print_json,
    reachable_database,
    require_migrated,
    run,
    settings_for,
)
from ledger.database import Database
from ledger.domain.access import Role
from ledger.keys import Key


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option(
    "--campaign", "campaigns", type=click.UUID, multiple=True, help="Confine it to this campaign; repeatable."
)
@click.option("--expires-in", type=click.IntRange(1, 36_500), metavar="DAYS", help="When it expires.  [default: never]")
@home_option
@json_option
def create(
    name: str, role: str, campaigns: tuple[UUID, ...], expires_in: int | None, home: Path | None, as_json: bool
) -> None:
    """Make a key called NAME, the actor of what is appended with it. It is shown this once."""
    if not (1 <= len(name) <= 100 and name.isprintable()):
        raise click.UsageError("NAME must have 1 to 100 printable characters")
    expires_at = datetime.now(UTC) + timedelta(days=expires_in) if expires_in else None
    with reachable_database(settings_for(home)) as url:
        key, text = run(_create(url, name, Role(role), list(campaigns) or None, expires_at))
    if as_json:
        print_json({**msgspec.structs.asdict(key), "key": text})
    else:
        click.echo(text)
        click.echo("Keep it: it is shown this once. Send it as: Authorization: Bearer lgr_...", err=True)


async def _create(
    url: URL, name: str, role: Role, campaigns: list[UUID] | None, expires_at: datetime | None
) -> tuple[Key, str]:
    database = Database(url)
    try:
        await require_migrated(database)
        async with database.connection() as connection:
            return await api_keys.create_key(connection, name, role, campaign_ids=campaigns, expires_at=expires_at)
    finally:
        await database.close()


@keys.command("list")
@home_option
@json_option
def list_(home: Path | None, as_json: bool) -> None:
    """List the keys."""
    with reachable_database(settings_for(home)) as url:
        found = run(_list(url))
    if as_json:
        print_json(found)
        return
    for key in found:
        state = "revoked" if key.revoked_at else _until(key.expires_at)
        confined = f", confined to {len(key.campaign_ids)} campaigns" if key.campaign_ids is not None else ""
        used = f"last used {key.last_used_at:%Y-%m-%d %H:%M}Z" if key.last_used_at else "never used"
        click.echo(f"{key.id}  {key.role.value:8} {key.name}  ({state}{confined}, {used})")


def _until(expires_at: datetime | None) -> str:
    if expires_at is None:
        return "good"
    return f"{'good until' if expires_at > datetime.now(UTC) else 'expired on'} {expires_at:%Y-%m-%d}"


async def _list(url: URL) -> list[Key]:
    database = Database(url)
    try:
        await require_migrated(database)
        async with database.connection() as connection:
            return await api_keys.list_keys(connection)
    finally:
        await database.close()


@keys.command()
@click.argument("key")
@home_option
@json_option
def revoke(key: str, home: Path | None, as_json: bool) -> None:
    """Revoke a key by its id or its name. Within five seconds it is refused everywhere."""
    with reachable_database(settings_for(home)) as url:
        revoked = run(_revoke(url, key))
    if as_json:
        print_json(revoked)
    else:
        click.echo(f"Revoked: {revoked.name} ({revoked.id}).")


async def _revoke(url: URL, key: str) -> Key:
    database = Database(url)
    try:
        await require_migrated(database)
        async with database.connection() as connection:
            return await api_keys.revoke_key(connection, key)
    finally:
        await database.close()
