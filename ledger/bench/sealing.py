"""seal: the log hashed into its tree and signed, against hashlib over the very same entries."""

import hashlib
import time
from typing import TYPE_CHECKING

from ledger.audit import tree_store
from ledger.audit.sealer import find_sealer
from ledger.audit.signing_files import SigningFiles
from ledger.audit.tree_store import CHUNK_EVENTS
from ledger.bench.report import Figure, Pair, ratio
from ledger.bench.stage import Stage
from ledger.database import Connection

if TYPE_CHECKING:
    pass

ORIGIN = "bench.example/log"


async def seal(stage: Stage) -> list[Figure]:
    """The sealer over a log, in as many parts as there are rounds."""
    events, rounds = stage.plan.log_events, stage.plan.rounds
    template = await stage.log(events, "trace", folded=False)
    pairs: list[Pair] = []
    with_reading: list[float] = []
    async with stage.database(template) as url, stage.opened(url) as database, stage.connection(url) as connection:
        head = await stage.position(url)
        # Another folder for each run: this log has never been sealed.
        sealer = await find_sealer(database, SigningFiles(stage.folder / "seal", None, ORIGIN), make_key=True)
        assert sealer is not None
        sealed = 0
        while sealed < head:
            stage.say(f"seal: {sealed:,} of {head:,} events")
            until = min(head, sealed + -(-head // rounds))
            hashing, reading = await _hash_entries(connection, sealed, until)
            began = time.perf_counter()
            done = await sealer.seal(until - sealed)
            pairs.append(Pair(done / (time.perf_counter() - began), (until - sealed) / hashing))
            with_reading.append((until - sealed) / (hashing + reading))
            sealed += done
    return [
        ratio(
            "seal",
            f"{head:,} events hashed into the tree, tiles stored and the checkpoint signed, in {rounds} parts",
            "hashlib: SHA-256 of the same entries, one by one, out of memory; reading them is not counted",
            pairs,
            target=0.3,
            unit="events/s",
            absolute={"entries read from the log and then hashed so, events/s": with_reading},
        )
    ]


async def _hash_entries(connection: Connection, after: int, until: int) -> tuple[float, float]:
    """Seconds for hashing these entries in Python, and for reading them before."""
    hashing = reading = 0.0
    for start in range(after, until, CHUNK_EVENTS):
        began = time.perf_counter()
        entries = [
            row[0] for row in await connection.fetch(tree_store.READ_ENTRIES, start, min(until, start + CHUNK_EVENTS))
        ]
        read = time.perf_counter()
        for entry in entries:
            hashlib.sha256(b"\x00" + entry).digest()
        hashing += time.perf_counter() - read
        reading += read - began
    return hashing, reading
