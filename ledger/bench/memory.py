"""memory: the most that the API and the worker ever had, over everything that was measured."""

from ledger.bench.append import append_batch
from ledger.bench.folding import catch_up
from ledger.bench.report import Figure, value
from ledger.bench.stage import Stage

MB_MAX = 200


async def memory(stage: Stage) -> list[Figure]:
    """Peaks over what was measured before; where that was nothing, over a batch of appends and their folding."""
    if "API" not in stage.peaks_mb:
        await append_batch(stage)
    if "worker" not in stage.peaks_mb:
        await catch_up(stage)
    return [
        value(
            f"memory {process}",
            f"peak resident memory of the {process} process, whichever of its runs had most",
            [stage.peaks_mb[process]],
            unit="MB",
            target=MB_MAX,
        )
        for process in ("API", "worker")
    ]
