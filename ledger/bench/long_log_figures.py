"""growth: whether appends and folds are as fast on a long log as on a short one."""

from sqlalchemy import URL

from ledger.bench.append_figures import BATCH, AppendMeter, send
from ledger.bench.environment import Environment
from ledger.bench.fold_figures import run_worker_to_head
from ledger.bench.report import Figure, Round, ratio_figure

TARGET = 0.85
WARM_UP_SECONDS = 1


async def growth(environment: Environment) -> list[Figure]:
    """Measure batches appended to logs of two lengths, and the worker that folds them."""
    long, short = environment.sizes.log_events, environment.sizes.young_log_events
    templates = {events: await environment.log_template(events, "trace", folded=True) for events in (long, short)}
    appends: list[Round] = []
    folds: list[Round] = []
    for number in range(1, environment.sizes.rounds + 1):
        rates: dict[int, tuple[float, float]] = {}
        for events, template in templates.items():
            environment.show_step(f"growth: round {number} of {environment.sizes.rounds}, at {events:,} events")
            async with environment.cloned_database(template) as url:
                rates[events] = await _append_and_fold(environment, url)
        appends.append(Round(rates[long][0], rates[short][0]))
        folds.append(Round(rates[long][1], rates[short][1]))
    work, control = f"at {long:,} events", f"the same at {short:,} events"
    return [
        ratio_figure("growth append_batch", f"append_batch {work}", control, appends, target=TARGET, unit="events/s"),
        ratio_figure(
            "growth catch_up",
            f"the worker over the appended events {work}, with read models of that size",
            control,
            folds,
            target=TARGET,
            unit="events/s",
        ),
    ]


async def _append_and_fold(environment: Environment, url: URL) -> tuple[float, float]:
    """Return the events appended per second, and the events folded per second."""
    async with environment.api(url) as api:
        await send(environment, api, BATCH, WARM_UP_SECONDS)
        result = await AppendMeter(environment).send(url, api, BATCH)
    folded_per_second, _ = await run_worker_to_head(environment, url)
    return result.requests * BATCH.events / result.seconds, folded_per_second
