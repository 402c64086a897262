"""seal: the log hashed into its Merkle tree and signed, against hashlib over the same entries."""

import hashlib
import time

from ledger.audit import tree_store
from ledger.audit.sealer import find_sealer
from ledger.audit.signing_files import SigningFiles
from ledger.audit.tree_store import CHUNK_EVENTS
from ledger.bench.environment import Environment
from ledger.bench.report import Figure, Round, ratio_figure
from ledger.database import Connection

ORIGIN = "bench.example/log"


async def seal(environment: Environment) -> list[Figure]:
    """Measure the sealer over a log, in as many parts as there are rounds."""
    events, round_count = environment.sizes.log_events, environment.sizes.rounds
    template = await environment.log_template(events, "trace", folded=False)
    rounds: list[Round] = []
    with_reading: list[float] = []
    async with (
        environment.cloned_database(template) as url,
        environment.open_database(url) as database,
        environment.connection(url) as connection,
    ):
        head = await environment.head_position(url)
        # A new folder for the key: this log has never been sealed.
        sealer = await find_sealer(database, SigningFiles(environment.folder / "seal", None, ORIGIN), make_key=True)
        assert sealer is not None
        sealed = 0
        while sealed < head:
            environment.show_step(f"seal: {sealed:,} of {head:,} events")
            until = min(head, sealed + -(-head // round_count))
            hashing_seconds, reading_seconds = await _hash_entries(connection, sealed, until)
            began = time.perf_counter()
            newly_sealed = await sealer.seal(until - sealed)
            rounds.append(Round(newly_sealed / (time.perf_counter() - began), (until - sealed) / hashing_seconds))
            with_reading.append((until - sealed) / (hashing_seconds + reading_seconds))
            sealed += newly_sealed
    return [
        ratio_figure(
            "seal",
            f"{head:,} events hashed into the tree, tiles stored and the checkpoint signed, in {round_count} parts",
            "hashlib: SHA-256 of each of the same entries, already in memory; reading them is not counted",
            rounds,
            target=0.3,
            unit="events/s",
            absolute={"entries read from the log and then hashed so, events/s": with_reading},
        )
    ]


async def _hash_entries(connection: Connection, after: int, until: int) -> tuple[float, float]:
    """Return the seconds for hashing these entries in Python, and the seconds for reading them."""
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
