"""growth: whether appends and folds are as fast on a long log as on a young one."""

from sqlalchemy import URL

from ledger.bench.append import BATCH, Meter
from ledger.bench.folding import folded_per_second
from ledger.bench.load import put_load
from ledger.bench.report import Figure, Pair, ratio
from ledger.bench.stage import Stage

TARGET = 0.85


async def growth(stage: Stage) -> list[Figure]:
    """Batches appended to logs of two lengths, then folded."""
    lengths = (stage.plan.log_events, stage.plan.young_log_events)
    templates = [await stage.log(events, "trace", folded=True) for events in lengths]
    appended: list[Pair] = []
    folded: list[Pair] = []
    for number in range(1, stage.plan.rounds + 1):
        found: list[tuple[float, float]] = []
        for template, events in zip(templates, lengths, strict=True):
            stage.say(f"growth: round {number} of {stage.plan.rounds}, at {events:,} events")
            async with stage.database(template) as url:
                found.append(await _at(stage, url))
        (old_append, old_fold), (young_append, young_fold) = found
        appended.append(Pair(old_append, young_append))
        folded.append(Pair(old_fold, young_fold))
    where, control = f"at {lengths[0]:,} events", f"the same at {lengths[1]:,} events"
    return [
        ratio("growth append_batch", f"append_batch {where}", control, appended, target=TARGET, unit="events/s"),
        ratio(
            "growth catch_up",
            f"the worker over what was appended {where}, the read models as large",
            control,
            folded,
            target=TARGET,
            unit="events/s",
        ),
    ]


async def _at(stage: Stage, url: URL) -> tuple[float, float]:
    """Events appended a second, then events folded a second."""
    async with stage.api(url) as api:
        await put_load(
            api.url, BATCH.kind, seconds=1, connections=BATCH.connections, events=BATCH.events, folder=stage.folder
        )
        loaded = await Meter(stage).sent(url, api, BATCH)
    folded, _ = await folded_per_second(stage, url)
    return loaded.requests * BATCH.events / loaded.seconds, folded
