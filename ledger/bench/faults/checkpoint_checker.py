"""Checks that each signed checkpoint of the service extends the one before: no fork, no rollback."""

from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec

from ledger.audit.merkle import ProofError, verify_consistency
from ledger.audit.note import NoteError, Verifier, decode_base64, open_note
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError
from ledger.audit.signing_files import SigningFiles


class CheckpointChecker:
    """Collects checkpoints and compares them with each other, as an external auditor does."""

    def __init__(self, files: SigningFiles, verifier: Verifier) -> None:
        self.count = 0
        self._files = files
        self._verifier = verifier
        self._last_served: Checkpoint | None = None
        self._roots: dict[int, bytes] = {}
        self._unproved_sizes: set[int] = set()

    async def violations(self, client: aiohttp.ClientSession, url: str) -> list[str]:
        """Check the checkpoint that an API process serves now, and the one stored beside the signing key.

        Args:
            client: an HTTP session with a key.
            url: the base URL of the API process.

        Returns:
            the violations.
        """
        violations: list[str] = []
        try:
            # Read first: the sealer writes it before the API may serve the checkpoint.
            if local := self._files.read_checkpoint(self._verifier):
                violations += self.add(local)
            status, note = await _get(client, f"{url}/v1/log/checkpoint")
            if status == HTTPStatus.NOT_FOUND:
                return violations
            served = Checkpoint.parse(open_note(note, [self._verifier]))
        except (NoteError, CheckpointError) as error:
            return [*violations, f"a checkpoint is invalid: {error}"]
        violations += self.add(served)
        if self._last_served is not None and served.size < self._last_served.size:
            violations.append(
                f"a checkpoint of {self._last_served.size} events was served, and later one of {served.size}"
            )
        self._last_served = served
        for size in sorted(size for size in self._unproved_sizes if size < served.size):
            _, proof = await _get(client, f"{url}/v1/log/proof/consistency?from={size}&to={served.size}")
            violations += self.prove(size, served.size, proof)
        return violations

    def add(self, checkpoint: Checkpoint) -> list[str]:
        """Add a checkpoint; two with the same size must have the same root."""
        root = self._roots.get(checkpoint.size)
        if root is None:
            self.count += 1
            self._roots[checkpoint.size] = checkpoint.root
            self._unproved_sizes.add(checkpoint.size)
        elif root != checkpoint.root:
            return [f"two checkpoints of {checkpoint.size} events have different roots: the log has been forked"]
        return []

    def prove(self, old: int, new: int, proof: bytes) -> list[str]:
        """Verify a consistency proof.

        Args:
            old: size of the older tree, in events.
            new: size of the newer tree, in events.
            proof: the response of the API, as JSON.

        Returns:
            a violation if the proof does not show that the newer tree extends the older one.
        """
        document: Any = msgspec.json.decode(proof)
        try:
            hashes = [decode_base64(text) for text in document["hashes"]]
            verify_consistency(old, new, self._roots[old], self._roots[new], hashes)
        except (ProofError, ValueError, KeyError) as error:
            return [f"the log of {new} events is not shown to extend that of {old}: {error!r}"]
        self._unproved_sizes.discard(old)
        return []


async def _get(client: aiohttp.ClientSession, url: str) -> tuple[int, bytes]:
    async with client.get(url) as response:
        return response.status, await response.read()
