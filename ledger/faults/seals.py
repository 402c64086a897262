"""Every signed checkpoint that the service shows, and that each is the beginning of the next."""

from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec

from ledger.audit.merkle import ProofError, verify_consistency
from ledger.audit.note import NoteError, Verifier, decode_base64, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError
from ledger.audit.signing_files import SigningFiles


class Seals:
    """Collects checkpoints and holds them against each other, as an auditor outside does."""

    def __init__(self, home: SigningFiles, verifier: Verifier) -> None:
        self.count = 0
        self._home = home
        self._verifier = verifier
        self._served: Checkpoint | None = None
        self._roots: dict[int, bytes] = {}
        self._unproved: set[int] = set()

    async def violations(self, client: aiohttp.ClientSession, url: str) -> list[str]:
        """What is wrong with the checkpoint that an API process serves now, and with the one kept beside the key."""
        found: list[str] = []
        try:
            # Read first: it is written before the log may show it.
            if kept := self._home.read_checkpoint(self._verifier):
                found += self.add(kept)
            status, note = await _get(client, f"{url}/v1/log/checkpoint")
            if status == HTTPStatus.NOT_FOUND:
                return found
            served = Checkpoint.parse(open_note(note, [self._verifier]))
        except (NoteError, CheckpointError) as error:
            return [*found, f"a checkpoint is not what was signed: {error}"]
        found += self.add(served)
        if self._served is not None and served.size < self._served.size:
            found.append(f"a checkpoint of {self._served.size} events was served, and later one of {served.size}")
        self._served = served
        for size in sorted(size for size in self._unproved if size < served.size):
            _, proof = await _get(client, f"{url}/v1/log/proof/consistency?from={size}&to={served.size}")
            found += self.prove(size, served.size, proof)
        return found

    def add(self, checkpoint: Checkpoint) -> list[str]:
        """Take up a checkpoint; there is one root a size."""
        root = self._roots.get(checkpoint.size)
        if root is None:
            self.count += 1
            self._roots[checkpoint.size] = checkpoint.root
            self._unproved.add(checkpoint.size)
        elif root != checkpoint.root:
            return [f"two checkpoints of {checkpoint.size} events have different roots: the log has been forked"]
        return []

    def prove(self, old: int, new: int, proof: bytes) -> list[str]:
        """Verify the service's own proof that the log at one size is the beginning of the log at another."""
        from_service: Any = msgspec.json.decode(proof)
        try:
            hashes = [decode_base64(text) for text in from_service["hashes"]]
            verify_consistency(old, new, self._roots[old], self._roots[new], hashes)
        except (ProofError, ValueError, KeyError) as error:
            return [f"the log of {new} events is not shown to extend that of {old}: {error!r}"]
        self._unproved.discard(old)
        return []


async def _get(client: aiohttp.ClientSession, url: str) -> tuple[int, bytes]:
    async with client.get(url) as answer:
        return answer.status, await answer.read()
