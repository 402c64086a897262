"""memory: the peak resident memory of the API and of the worker over the whole run."""

from ledger.bench.append_figures import append_batch
from ledger.bench.environment import Environment
from ledger.bench.fold_figures import catch_up
from ledger.bench.report import Figure, absolute_figure

MB_MAX = 200


async def memory(environment: Environment) -> list[Figure]:
    """Return the peaks of all figures measured before; if there were none, measure append_batch and catch_up."""
    if "API" not in environment.peaks_mb:
        await append_batch(environment)
    if "worker" not in environment.peaks_mb:
        await catch_up(environment)
    return [
        absolute_figure(
            f"memory {process}",
            f"peak resident memory of the {process} process, the highest of its runs",
            [environment.peaks_mb[process]],
            unit="MB",
            target=MB_MAX,
        )
        for process in ("API", "worker")
    ]
