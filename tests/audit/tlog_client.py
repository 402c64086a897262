"""Independent client of a tiled transparency log, written from the C2SP specifications alone.

The specifications are signed-note, tlog-checkpoint and tlog-tiles. The client uses no code of the ledger and recomputes
every hash.
"""

import base64
import hashlib
import struct
from typing import NamedTuple

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.audit import naive


class Head(NamedTuple):
    """The content of a checkpoint."""

    origin: str
    size: int
    root: bytes


def open_checkpoint(note: bytes, vkey: str) -> Head:
    """Parse a checkpoint whose only signature must be by this key."""
    name, key_id, encoded = vkey.strip().split("+", 2)
    key = base64.b64decode(encoded, validate=True)
    assert key[0] == 1, "an Ed25519 key"
    assert hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() == key_id
    text, _, signatures = note.rpartition(b"\n\n")
    text += b"\n"
    dash, signer, encoded_signature = signatures.decode().removesuffix("\n").split(" ")
    assert (dash, signer) == ("—", name)
    signature = base64.b64decode(encoded_signature, validate=True)
    assert signature[:4].hex() == key_id
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text)
    origin, size, root = text.decode().splitlines()
    assert origin == name
    assert size == str(int(size))
    return Head(origin, int(size), base64.b64decode(root, validate=True))


def path(index: int, width: int) -> str:
    """Return `<N>[.p/<W>]`: three digits per path element, all but the last prefixed with x."""
    elements = [f"{index % 1000:03}"]
    while index := index // 1000:
        elements.insert(0, f"x{index % 1000:03}")
    return "/".join(elements) + (f".p/{width}" if width < 256 else "")


def split_bundle(bundle: bytes) -> list[bytes]:
    """Return the entries of a bundle: each is preceded by its length in two bytes."""
    entries = []
    while bundle:
        (length,) = struct.unpack(">H", bundle[:2])
        assert len(bundle) >= 2 + length
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    return entries


class TileClient:
    """Reads the log at `/v1/log/`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, name: str, media: str) -> bytes:
        async with self._session.get(f"/v1/log/{name}") as answer:
            body = await answer.read()
            assert (answer.status, answer.content_type) == (200, media), (name, answer.status, body[:200])
            immutable = "immutable" in answer.headers["Cache-Control"]
            assert immutable == name.startswith("tile/")
            return body

    async def head(self) -> Head:
        """Fetch and verify the log's checkpoint."""
        vkey = await self.get("key", "text/plain")
        return open_checkpoint(await self.get("checkpoint", "text/plain"), vkey.decode())

    async def tile(self, level: int | str, index: int, width: int) -> bytes:
        return await self.get(f"tile/{level}/{path(index, width)}", "application/octet-stream")

    async def walk(self, head: Head, seen: tuple[Head, ...] = ()) -> list[bytes]:
        """Fetch the whole log, verify it against this head and those seen earlier, and return its entries."""
        entries: list[bytes] = []
        hashes: list[bytes] = []
        for index in range(-(-head.size // 256)):
            width = min(256, head.size - 256 * index)
            entries += split_bundle(await self.tile("entries", index, width))
            assert len(entries) == 256 * index + width
            tile = await self.tile(0, index, width)
            assert len(tile) == 32 * width
            hashes += [tile[at : at + 32] for at in range(0, len(tile), 32)]
        assert hashes == [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
        for (level, index), tile in naive.tiles(hashes).items():
            if level:
                assert await self.tile(level, index, len(tile) // 32) == tile
        for earlier in (*seen, head):
            assert earlier.size <= head.size
            assert naive.root(hashes[: earlier.size]) == earlier.root, f"{earlier} is not of this log"
        return entries
