"""Inclusion and consistency proofs over HTTP, verified; and requests that cannot be proved."""

import base64
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from sqlalchemy import URL

from ledger.audit.merkle import ProofError, verify_consistency, verify_inclusion
from ledger.audit.signing_files import SigningFiles
from tests.api.helpers import slug
from tests.audit import naive
from tests.audit.sealing import ORIGIN, clone, entries_of, fill, get_json, open_database, sealer_of, served

SIZE = 18
LARGE = [19, 255, 256, 257, 511, 513, 700]
BIG = 2**63 - 1


class Log(NamedTuple):
    """A sealed log and the leaf hashes of its events."""

    client: aiohttp.ClientSession
    leaves: list[bytes]

    def root(self, size: int) -> bytes:
        return naive.root(self.leaves[:size])

    async def inclusion(self, position: int, size: int) -> list[bytes]:
        status, proof = await get_json(self.client, "/v1/log/proof/inclusion", position=position, size=size)
        assert status == 200
        assert list(proof) == ["leaf_index", "tree_size", "hashes"]
        assert (proof["leaf_index"], proof["tree_size"]) == (position - 1, size)
        return [base64.b64decode(text, validate=True) for text in proof["hashes"]]

    async def consistency(self, old: int, new: int) -> list[bytes]:
        status, proof = await get_json(self.client, "/v1/log/proof/consistency", **{"from": old, "to": new})
        assert status == 200
        assert list(proof) == ["from", "to", "hashes"]
        assert (proof["from"], proof["to"]) == (old, new)
        return [base64.b64decode(text, validate=True) for text in proof["hashes"]]


@pytest.fixture(scope="module")
async def log(server_url: URL, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Log]:
    """Serve a log of 701 events: 700 sealed step by step, and the last one not sealed."""
    url = server_url.set(database=f"proofs_{uuid.uuid4().hex[:12]}")
    await clone(server_url.set(database=template), url)
    home: Path = tmp_path_factory.mktemp("home")
    async with open_database(url) as database, served(database) as client:
        sealer = await sealer_of(database, SigningFiles(home, None, ORIGIN))
        for count in (1, 1, SIZE - 2, 237, 3, LARGE[-1] - 240 - SIZE):
            await fill(database, count)
            await sealer.seal()
        await fill(database, 1)
        yield Log(client, naive.leaf_hashes((await entries_of(database))[:-1]))


async def test_every_event_has_a_valid_inclusion_proof_in_every_small_tree(log: Log) -> None:
    for size in range(1, SIZE + 1):
        for position in range(1, size + 1):
            proof = await log.inclusion(position, size)

            assert proof == naive.inclusion(position - 1, log.leaves[:size])
            verify_inclusion(log.leaves[position - 1], position - 1, size, proof, log.root(size))


async def test_every_small_tree_has_a_valid_consistency_proof_to_every_larger_one(log: Log) -> None:
    for new in range(1, SIZE + 1):
        for old in range(1, new + 1):
            proof = await log.consistency(old, new)

            assert proof == naive.consistency(old, log.leaves[:new])
            verify_consistency(old, new, log.root(old), log.root(new), proof)


@pytest.mark.parametrize("size", LARGE)
async def test_proofs_of_larger_trees_are_valid(log: Log, size: int) -> None:
    for position in {1, 2, size // 2, 256, 257, size - 1, size}:
        if 1 <= position <= size:
            proof = await log.inclusion(position, size)
            verify_inclusion(log.leaves[position - 1], position - 1, size, proof, log.root(size))
            proof = await log.consistency(position, size)
            verify_consistency(position, size, log.root(position), log.root(size), proof)


async def test_a_proof_is_invalid_for_another_event(log: Log) -> None:
    proof = await log.inclusion(5, SIZE)

    with pytest.raises(ProofError):
        verify_inclusion(log.leaves[5], 4, SIZE, proof, log.root(SIZE))


async def test_the_default_size_is_the_last_sealed_tree(log: Log) -> None:
    inclusion = (await get_json(log.client, "/v1/log/proof/inclusion", position=3))[1]
    consistency = (await get_json(log.client, "/v1/log/proof/consistency", **{"from": 3}))[1]

    assert (inclusion["tree_size"], consistency["to"]) == (700, 700)
    assert [base64.b64decode(text) for text in inclusion["hashes"]] == naive.inclusion(2, log.leaves)
    assert [base64.b64decode(text) for text in consistency["hashes"]] == naive.consistency(3, log.leaves)


@pytest.mark.parametrize("to", [0, 1, 700])
async def test_a_proof_from_the_empty_tree_is_empty(log: Log, to: int) -> None:
    assert await log.consistency(0, to) == []


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("inclusion", {}),
        ("inclusion", {"size": 3}),
        ("inclusion", {"position": 0}),
        ("inclusion", {"position": -1}),
        ("inclusion", {"position": "one"}),
        ("inclusion", {"position": "1.0"}),
        ("inclusion", {"position": ""}),
        ("inclusion", {"position": BIG + 1}),
        ("inclusion", {"position": 10**30}),
        ("inclusion", {"position": 1, "size": 0}),
        ("inclusion", {"position": 4, "size": 3}),
        ("inclusion", {"position": 701, "size": 700}),
        ("inclusion", {"position": BIG, "size": 700}),
        ("inclusion", {"position": 1, "size": -3}),
        ("inclusion", {"position": 1, "size": "null"}),
        ("inclusion", {"position": 1, "tree_size": 3}),
        ("inclusion", {"leaf_index": 1}),
        ("consistency", {}),
        ("consistency", {"to": 3}),
        ("consistency", {"from": 4, "to": 3}),
        ("consistency", {"from": 701, "to": 700}),
        ("consistency", {"from": 1, "to": 0}),
        ("consistency", {"from": -1}),
        ("consistency", {"from": BIG}),
        ("consistency", {"from": BIG + 1}),
        ("consistency", {"from": 1, "to": 2, "size": 3}),
        ("consistency", {"start": 1}),
    ],
    ids=str,
)
async def test_invalid_requests_are_malformed(log: Log, path: str, parameters: dict[str, Any]) -> None:
    status, problem = await get_json(log.client, f"/v1/log/proof/{path}", **parameters)

    assert (status, slug(problem)) == (400, "malformed")


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("inclusion", {"position": 701}),
        ("inclusion", {"position": 1, "size": 701}),
        ("inclusion", {"position": 701, "size": 701}),
        ("consistency", {"from": 701}),
        ("consistency", {"from": 1, "to": 701}),
    ],
    ids=str,
)
async def test_an_event_that_is_not_sealed_yet_is_not_found(log: Log, path: str, parameters: dict[str, Any]) -> None:
    status, problem = await get_json(log.client, f"/v1/log/proof/{path}", **parameters)

    assert (status, slug(problem)) == (404, "not-found")
    assert problem["detail"] == "the log is sealed up to 700 events, not yet up to 701"


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("inclusion", {"position": 702}),
        ("inclusion", {"position": BIG}),
        ("inclusion", {"position": 1, "size": 702}),
        ("inclusion", {"position": 1, "size": BIG}),
        ("consistency", {"from": 702}),
        ("consistency", {"from": 1, "to": 702}),
        ("consistency", {"from": 701, "to": 702}),
    ],
    ids=str,
)
async def test_positions_beyond_the_end_are_malformed(log: Log, path: str, parameters: dict[str, Any]) -> None:
    status, problem = await get_json(log.client, f"/v1/log/proof/{path}", **parameters)

    assert (status, slug(problem)) == (400, "malformed")
    assert "the log ends at position 701" in problem["detail"]


async def test_the_document_lists_the_parameters_of_the_audit_log(log: Log) -> None:
    paths = (await get_json(log.client, "/openapi.json"))[1]["paths"]

    described = {
        path: [(given["name"], given["in"], given["required"]) for given in methods["get"]["parameters"]]
        for path, methods in paths.items()
        if path.startswith("/v1/log/") and methods["get"].get("parameters")
    }
    assert described["/v1/log/tile/{tile}"] == [("tile", "path", True)]
    assert described["/v1/log/proof/inclusion"] == [("position", "query", True), ("size", "query", False)]
    assert described["/v1/log/proof/consistency"] == [("from", "query", True), ("to", "query", False)]
    assert {"/v1/log/checkpoint", "/v1/log/key"} <= paths.keys()
    media = {path: list(paths[path]["get"]["responses"]["200"]["content"]) for path in paths if "/v1/log/" in path}
    assert media["/v1/log/checkpoint"] == media["/v1/log/key"] == ["text/plain"]
    assert media["/v1/log/tile/{tile}"] == ["application/octet-stream"]
