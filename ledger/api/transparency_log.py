"""The audit log as C2SP tlog-tiles serves it, and proofs for those who do not compute them themselves."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    pass

IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "no-cache"}

EventPosition = Annotated[int, msgspec.Meta(ge=1, le=POSITION_MAX)]


class InclusionQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which event, in the tree of which size; without one in the last sealed tree."""

    position: EventPosition
    size: Position | None = None


class ConsistencyQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """From which size to which; without `to` up to the last sealed tree."""

    start: Position = msgspec.field(name="from")
    end: Position | None = msgspec.field(name="to", default=None)


class InclusionProof(msgspec.Struct):
    """That a leaf is in the tree (RFC 6962, section 2.1.1); hashes in base64."""

    leaf_index: int
    tree_size: int
    hashes: list[str]


class ConsistencyProof(msgspec.Struct):
    """That a tree extends an earlier one (RFC 6962, section 2.1.2); hashes in base64."""

    start: int = msgspec.field(name="from")
    end: int = msgspec.field(name="to")
    hashes: list[str]


async def get_checkpoint(request: web.Request, services: Services) -> web.StreamResponse:
    """The last signed checkpoint."""
    async with _tree(services) as (_, sealed):
        pass
    return web.Response(body=sealed.note, content_type=PLAIN, charset="utf-8", headers=FRESH)


async def get_key(request: web.Request, services: Services) -> web.StreamResponse:
    """The verifier key."""
    async with _tree(services) as (_, sealed):
        pass
    return web.Response(text=f"{sealed.verifier_key}\n", content_type=PLAIN, headers=FRESH)


async def get_tile(request: web.Request, services: Services) -> web.StreamResponse:
    """A tile, or an entry bundle."""
    # Not as aiohttp has decoded it: there is one way to write each path.
    path = request.raw_path.partition("?")[0].removeprefix("/v1/log/tile/")
    try:
        wanted = parse_path(path)
    except TilePathError as error:
        raise Malformed(str(error)) from None
    async with _tree(services) as (connection, sealed):
        level = wanted.level if isinstance(wanted, Tile) else 0
        if wanted.width > tile_width(level, wanted.index, sealed.size):
            raise NotFound(f"there is no tile {path}: {sealed.size} events are sealed")
        if isinstance(wanted, Tile):
            body = await tree_store.read_hashes(connection, wanted)
        else:
            first = wanted.index * TILE_WIDTH
            body = encode_bundle(await tree_store.read_entries(connection, first, first + wanted.width))
    return web.Response(body=body, content_type=OCTETS, headers=IMMUTABLE)


@asynccontextmanager
async def _tree(services: Services) -> "AsyncIterator[tuple[Connection, tree_store.SealedTree]]":
    """The sealed tree and a connection to read it in one snapshot: an operator may just be giving it up."""
    refused = None
    async with services.database.connection() as connection:
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                sealed = await tree_store.read_sealed_tree(connection)
                if sealed.note is None:
                    raise NotFound("the log is not sealed yet: see `ledger up` and `ledger worker`")
                yield connection, sealed
        except LedgerError as error:
            # That is an answer; the connection is as good as before.
            refused = error
    if refused is not None:
        raise refused


async def get_inclusion(request: web.Request, services: Services) -> web.StreamResponse:
    """Prove that an event is in the log."""
    query = read_query(request, InclusionQuery)
    async with _tree(services) as (connection, sealed):
        _require_sealed(query.position, sealed)
        size = _sealed_size(sealed, query.size)
        try:
            groups = inclusion_nodes(query.position - 1, size)
        except ProofError:
            raise Malformed(f"position {query.position} is not among the {size} events of this tree") from None
        hashes = await tree_store.read_subtrees(connection, groups)
    return json_response(InclusionProof(query.position - 1, size, [_text(found) for found in hashes]))


async def get_consistency(request: web.Request, services: Services) -> web.StreamResponse:
    """Prove that the log at one size is the beginning of the log at another."""
    query = read_query(request, ConsistencyQuery)
    async with _tree(services) as (connection, sealed):
        end = _sealed_size(sealed, query.end)
        try:
            groups = consistency_nodes(query.start, end)
        except ProofError as error:
            raise Malformed(f"from must not be more than to: {error}") from None
        hashes = await tree_store.read_subtrees(connection, groups)
    return json_response(ConsistencyProof(query.start, end, [_text(found) for found in hashes]))


def _sealed_size(sealed: tree_store.SealedTree, wanted: int | None) -> int:
    if wanted is None:
        return sealed.size
    _require_sealed(wanted, sealed)
    return wanted


def _require_sealed(wanted: int, sealed: tree_store.SealedTree) -> None:
    if wanted > sealed.size:
        raise NotFound(f"the log is sealed up to {sealed.size} events, not {wanted} yet")


def _text(found: bytes) -> str:
    return base64.b64encode(found).decode()


_READS = ("malformed", "not-found", "database-unavailable")

ROUTES = [
    Route(
        "GET",
        "/v1/log/checkpoint",
        get_checkpoint,
        "Read the last signed checkpoint.",
        {200: str},
        problems=_READS,
        needs="audit",
        media=(PLAIN,),
    ),
    Route(
        "GET",
        "/v1/log/key",
        get_key,
        "Read the verifier key.",
        {200: str},
        problems=_READS,
        media=(PLAIN,),
        needs="audit",
    ),
    Route(
        "GET",
        "/v1/log/tile/{tile}",
        get_tile,
        "Read a tile of the tree, or a bundle of its entries.",
        {200: str},
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
        "Prove that the log was only appended to.",
        {200: ConsistencyProof},
        ConsistencyQuery,
        problems=_READS,
        needs="audit",
    ),
]
