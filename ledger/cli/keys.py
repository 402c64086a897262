"""ledger keys create, list and revoke: the API keys."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import click
import msgspec
from sqlalchemy import URL

from ledger import keys as api_keys
from ledger.cli.databases import migrated_database, service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, echo, print_json
from ledger.cli.settings import settings_for
from ledger.cli.user import command_line_actor
from ledger.domain.access import Role
from ledger.domain.errors import Malformed
from ledger.keys import Key
from ledger.log import key_events


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="Grant the permissions of this role.",
)
@click.option(
    "--campaign",
    "campaigns",
    type=click.UUID,
    multiple=True,
    metavar="ID",
    help="Restrict the key to this campaign; repeatable.  [default: all campaigns]",
)
@click.option(
    "--expires-in", type=click.IntRange(1, 36_500), metavar="DAYS", help="Expire after DAYS days.  [default: never]"
)
@home_option
@json_option
def create(
    name: str, role: str, campaigns: tuple[UUID, ...], expires_in: int | None, home: Path | None, as_json: bool
) -> None:
    """Create an API key called NAME and print it once.

    NAME is recorded as the actor of every event that is appended with the key. The key itself is not stored, only its
    hash. Spaces around NAME are removed. Names that differ only in case, width or compatibility forms count as one.
    """
    try:
        api_keys.checked_name(name)
    except Malformed as error:
        raise click.UsageError(str(error)) from None
    expires_at = datetime.now(UTC) + timedelta(days=expires_in) if expires_in else None
    with service_url(settings_for(home)) as url:
        key, text = run_async(_create(url, name, Role(role), list(campaigns) or None, expires_at))
    if as_json:
        print_json({**msgspec.structs.asdict(key), "key": text})
    else:
        echo(text)
        echo("Store it now: it is not shown again. Send it as: Authorization: Bearer lgr_...", err=True)


async def _create(
    url: URL, name: str, role: Role, campaigns: list[UUID] | None, expires_at: datetime | None
) -> tuple[Key, str]:
    async with migrated_database(url) as database, database.connection() as connection:
        return await key_events.create_key(
            connection, name, role, actor=command_line_actor(), campaign_ids=campaigns, expires_at=expires_at
        )


@keys.command("list")
@home_option
@json_option
def list_(home: Path | None, as_json: bool) -> None:
    """List all API keys: id, role, state, campaigns, last use and name."""
    with service_url(settings_for(home)) as url:
        listed = run_async(_list(url))
    if as_json:
        print_json(listed)
        return
    if not listed:
        echo("There are no API keys.")
    rows = [(key.id, key.role.value, _state(key), _campaigns(key), _last_use(key), key.name) for key in listed]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _state(key: Key) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    return f"{'valid until' if key.expires_at > datetime.now(UTC) else 'expired on'} {key.expires_at:%Y-%m-%d}"


def _campaigns(key: Key) -> str:
    if key.campaign_ids is None:
        return "all campaigns"
    return counted(len(key.campaign_ids), "campaign")


def _last_use(key: Key) -> str:
    return f"last used {key.last_used_at:%Y-%m-%d %H:%M}Z" if key.last_used_at else "never used"


async def _list(url: URL) -> list[Key]:
    async with migrated_database(url) as database, database.connection() as connection:
        return await api_keys.list_keys(connection)


@keys.command()
@click.argument("key")
@home_option
@json_option
def revoke(key: str, home: Path | None, as_json: bool) -> None:
    """Revoke the API key with the id KEY, or else the one with the name KEY.

    Every process of the service refuses it within five seconds.
    """
    with service_url(settings_for(home)) as url:
        revoked = run_async(_revoke(url, key))
    if as_json:
        print_json(revoked)
    else:
        echo(f"Revoked {revoked.name} ({revoked.id}).")


async def _revoke(url: URL, key: str) -> Key:
    async with migrated_database(url) as database, database.connection() as connection:
        key_id = await api_keys.find_key(connection, key)
        return await key_events.revoke_key(connection, key_id, actor=command_line_actor())
