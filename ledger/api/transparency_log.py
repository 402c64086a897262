"""GET /v1/log: checkpoint, key and tiles of the sealed log (C2SP), inclusion and consistency proofs."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from aiohttp import web

from ledger.api.parameters import POSITION_MAX, Position, read_query
from ledger.api.routes import OCTETS, PLAIN, Route, json_response
from ledger.api.services import Services
from ledger.audit import tree_store
from ledger.audit.merkle import ProofError, consistency_nodes, inclusion_nodes
from ledger.audit.tiles import TILE_WIDTH, Tile, TilePathError, encode_bundle, parse_path, tile_width
from ledger.database import Connection
from ledger.domain.errors import LedgerError, Malformed, NotFound
from ledger.log.point_in_time import require_positions

IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "private, no-cache"}

EventPosition = Annotated[int, msgspec.Meta(ge=1, le=POSITION_MAX)]


class InclusionQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The event to prove, and the tree."""

    position: EventPosition
    size: Position | None = None


class ConsistencyQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The two trees."""

    start: Position = msgspec.field(name="from")
    end: Position | None = msgspec.field(name="to", default=None)


class InclusionProof(msgspec.Struct):
    """Proof that an event is in the tree (RFC 6962, section 2.1.1)."""

    leaf_index: int
    tree_size: int
    hashes: list[str]


class ConsistencyProof(msgspec.Struct):
    """Proof that a tree extends an earlier one (RFC 6962, section 2.1.2)."""

    start: int = msgspec.field(name="from")
    end: int = msgspec.field(name="to")
    hashes: list[str]


async def get_checkpoint(request: web.Request, services: Services) -> web.StreamResponse:
    """Return the last signed checkpoint."""
    async with _tree(services) as (_, sealed):
        pass
    return web.Response(body=sealed.note, content_type=PLAIN, charset="utf-8", headers=FRESH)


async def get_key(request: web.Request, services: Services) -> web.StreamResponse:
    """Return the verifier key."""
    async with _tree(services) as (_, sealed):
        pass
    return web.Response(text=f"{sealed.verifier_key}\n", content_type=PLAIN, headers=FRESH)


async def get_tile(request: web.Request, services: Services) -> web.StreamResponse:
    """Return a tile of hashes, or a bundle of entries."""
    # The raw path, not decoded by aiohttp: each tile has exactly one path.
    path = request.raw_path.partition("?")[0].removeprefix("/v1/log/tile/")
    try:
        tile = parse_path(path)
    except TilePathError as error:
        raise Malformed(str(error)) from None
    async with _tree(services) as (connection, sealed):
        level = tile.level if isinstance(tile, Tile) else 0
        if tile.width > tile_width(level, tile.index, sealed.size):
            raise NotFound(f"there is no tile {path}: only {sealed.size} events are sealed")
        if isinstance(tile, Tile):
            body = await tree_store.read_hashes(connection, tile)
        else:
            first = tile.index * TILE_WIDTH
            body = encode_bundle(await tree_store.read_entries(connection, first, first + tile.width))
    return web.Response(body=body, content_type=OCTETS, headers=IMMUTABLE)


@asynccontextmanager
async def _tree(services: Services) -> AsyncIterator[tuple[Connection, tree_store.SealedTree]]:
    """Yield the sealed tree and a connection to read it in one snapshot: an operator may be discarding it."""
    refusal = None
    async with services.database.connection() as connection:
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                sealed = await tree_store.read_sealed_tree(connection)
                if sealed.note is None:
                    raise NotFound("the log is not sealed yet; run `ledger up` or `ledger worker`")
                yield connection, sealed
        except LedgerError as error:
            # Raised after the connection is back in the pool: it is still usable.
            refusal = error
    if refusal is not None:
        raise refusal


async def get_inclusion(request: web.Request, services: Services) -> web.StreamResponse:
    """Return an inclusion proof of an event."""
    query = read_query(request, InclusionQuery)
    async with _tree(services) as (connection, sealed):
        await _require_sealed(connection, sealed, query.position if query.size is None else query.size)
        size = sealed.size if query.size is None else query.size
        try:
            groups = inclusion_nodes(query.position - 1, size)
        except ProofError:
            raise Malformed(f"position {query.position} is not in the tree of {size} events") from None
        hashes = await tree_store.read_subtrees(connection, groups)
    return json_response(InclusionProof(query.position - 1, size, [_base64(node) for node in hashes]))


async def get_consistency(request: web.Request, services: Services) -> web.StreamResponse:
    """Return a proof that a tree extends an earlier one."""
    query = read_query(request, ConsistencyQuery)
    async with _tree(services) as (connection, sealed):
        await _require_sealed(connection, sealed, query.start if query.end is None else query.end)
        end = sealed.size if query.end is None else query.end
        try:
            groups = consistency_nodes(query.start, end)
        except ProofError as error:
            raise Malformed(f"`from` must not be greater than `to`: {error}") from None
        hashes = await tree_store.read_subtrees(connection, groups)
    return json_response(ConsistencyProof(query.start, end, [_base64(node) for node in hashes]))


async def _require_sealed(connection: Connection, sealed: tree_store.SealedTree, position: int) -> None:
    """Refuse a position that is not sealed: `NotFound` if it will be, `Malformed` if the log does not reach it."""
    if position > sealed.size:
        await require_positions(connection, position)
        raise NotFound(f"the log is sealed up to {sealed.size} events, not yet up to {position}")


def _base64(node: bytes) -> str:
    return base64.b64encode(node).decode()


_READS = ("malformed", "not-found", "database-unavailable")

ROUTES = [
    Route(
        "GET",
        "/v1/log/checkpoint",
        get_checkpoint,
        "Read the last signed checkpoint.",
        {200: Annotated[str, msgspec.Meta(description="The checkpoint, a signed note.")]},
        problems=_READS,
        needs="audit",
        media=(PLAIN,),
    ),
    Route(
        "GET",
        "/v1/log/key",
        get_key,
        "Read the verifier key, with which checkpoints are verified.",
        {200: Annotated[str, msgspec.Meta(description="The verifier key, as in signed notes.")]},
        problems=_READS,
        media=(PLAIN,),
        needs="audit",
    ),
    Route(
        "GET",
        "/v1/log/tile/{tile}",
        get_tile,
        "Read a tile of the tree, or a bundle of its entries.",
        {200: Annotated[str, msgspec.Meta(description="The hashes of the tile, or the entries of the bundle.")]},
        problems=_READS,
        needs="audit",
        media=(OCTETS,),
    ),
    Route(
        "GET",
        "/v1/log/proof/inclusion",
        get_inclusion,
        "Prove that an event is in the log.",
        {200: InclusionProof},
        InclusionQuery,
        problems=_READS,
        needs="audit",
    ),
    Route(
        "GET",
        "/v1/log/proof/consistency",
        get_consistency,
        "Prove that the log was only appended to between two sizes.",
        {200: ConsistencyProof},
        ConsistencyQuery,
        problems=_READS,
        needs="audit",
    ),
]
