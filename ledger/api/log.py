"""The audit log as C2SP tlog-tiles serves it, and proofs for those who do not compute them themselves."""

import base64
from typing import TYPE_CHECKING, Annotated

import msgspec
from aiohttp import web

from ledger.api.routes import OCTETS, PLAIN, Route, json_response, read_query
from ledger.api.services import Services
from ledger.audit import store
from ledger.audit.entry import entry_of
from ledger.audit.merkle import HASH_BYTES, ProofError, consistency_nodes, inclusion_nodes
from ledger.audit.tiles import TILE_WIDTH, Bundle, Tile, TilePathError, encode_bundle, parse_path, tile_width
from ledger.database import driver_connection
from ledger.domain.errors import Malformed, NotFound
from ledger.log.read import EventFilter, read_all

if TYPE_CHECKING:
    import asyncpg

IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "no-cache"}

Position = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class InclusionQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which event, in the tree of which size; without one in the last sealed tree."""

    position: Position
    size: Size | None = None


class ConsistencyQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """From which size to which; without `to` up to the last sealed tree."""

    start: Size = msgspec.field(name="from")
    end: Size | None = msgspec.field(name="to", default=None)


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
    async with driver_connection(services.engine) as connection:
        sealed = await store.read_sealed(connection)
    if sealed.note is None:
        raise NotFound("the log is not sealed yet: a sealer runs where the key is (`ledger up` or `ledger worker`)")
    return web.Response(body=sealed.note, content_type=PLAIN, charset="utf-8", headers=FRESH)


async def get_key(request: web.Request, services: Services) -> web.StreamResponse:
    """The verifier key."""
    async with driver_connection(services.engine) as connection:
        sealed = await store.read_sealed(connection)
    if sealed.verifier_key is None:
        raise NotFound("the log is not sealed yet, so there is no key")
    return web.Response(text=sealed.verifier_key + "\n", content_type=PLAIN, headers=FRESH)


async def get_tile(request: web.Request, services: Services) -> web.StreamResponse:
    """A tile, or an entry bundle."""
    path = request.match_info["tile"]
    try:
        wanted = parse_path(path)
    except TilePathError as error:
        raise Malformed(str(error)) from None
    async with driver_connection(services.engine) as connection:
        size = (await store.read_sealed(connection)).size
        level = wanted.level if isinstance(wanted, Tile) else 0
        if wanted.width > tile_width(level, wanted.index, size):
            raise NotFound(f"there is no tile {path}: {size} events are sealed")
        if isinstance(wanted, Tile):
            tiles = await store.read_tiles(connection, [(wanted.level, wanted.index)])
            body = tiles[wanted.level, wanted.index][: wanted.width * HASH_BYTES]
            return web.Response(body=body, content_type=OCTETS, headers=IMMUTABLE)
    return web.Response(body=await _bundle(services, wanted), content_type=OCTETS, headers=IMMUTABLE)


async def _bundle(services: Services, wanted: Bundle) -> bytes:
    first = wanted.index * TILE_WIDTH
    events = EventFilter(after=first, until=first + wanted.width)
    return encode_bundle([entry_of(event) async for page in read_all(services.engine, events) for event in page])


async def get_inclusion(request: web.Request, services: Services) -> web.StreamResponse:
    """Prove that an event is in the log."""
    query = read_query(request, InclusionQuery)
    async with driver_connection(services.engine) as connection:
        size = await _sealed_size(connection, query.size)
        try:
            groups = inclusion_nodes(query.position - 1, size)
        except ProofError:
            raise Malformed(f"position {query.position} is not among the {size} events of this tree") from None
        hashes = await store.read_subtrees(connection, groups)
    return json_response(InclusionProof(query.position - 1, size, [_text(found) for found in hashes]))


async def get_consistency(request: web.Request, services: Services) -> web.StreamResponse:
    """Prove that the log at one size is the beginning of the log at another."""
    query = read_query(request, ConsistencyQuery)
    async with driver_connection(services.engine) as connection:
        end = await _sealed_size(connection, query.end)
        try:
            groups = consistency_nodes(query.start, end)
        except ProofError as error:
            raise Malformed(f"from must not be more than to: {error}") from None
        hashes = await store.read_subtrees(connection, groups)
    return json_response(ConsistencyProof(query.start, end, [_text(found) for found in hashes]))


async def _sealed_size(connection: "asyncpg.Connection[asyncpg.Record]", wanted: int | None) -> int:
    sealed = (await store.read_sealed(connection)).size
    if wanted is not None and wanted > sealed:
        raise NotFound(f"the log is sealed up to {sealed} events, not {wanted} yet")
    return sealed if wanted is None else wanted


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
