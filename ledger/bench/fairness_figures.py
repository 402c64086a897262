"""fair: what one API key can still append while another key sends as much as it can."""

import asyncio
from collections import defaultdict
from typing import NamedTuple

from sqlalchemy import URL

from ledger.bench.environment import Environment
from ledger.bench.errors import PromiseViolationError
from ledger.bench.load_client import LoadResult
from ledger.bench.load_process import in_background, run_load
from ledger.bench.processes import Child
from ledger.bench.report import Figure, Round, ratio_figure
from ledger.domain.access import Role

TARGET = 1 / 3

HEAVY_CONNECTIONS = 12
HEAVY_EVENTS = 5_000
"""Events per request of the heavy key: the most that a request may have."""

LIGHT_CONNECTIONS = 4

HEAVY_STARTS_EARLIER_SECONDS = 3
"""How much longer the heavy load lasts than the light one, which starts when the first heavy batch is in the log."""


class _Service(NamedTuple):
    """The API process, its database, and the two keys."""

    environment: Environment
    url: URL
    api: Child
    light_key: str
    heavy_key: str

    async def send_lightly(self) -> LoadResult:
        """Send single events with the light key for one round.

        Raises:
            MeasurementError: a request failed.
            PromiseViolationError: a request was answered 503.
        """
        result = await run_load(
            self.api.url,
            "costs",
            seconds=self.environment.sizes.seconds,
            connections=LIGHT_CONNECTIONS,
            key=self.light_key,
            may_be_overloaded=True,
            folder=self.environment.folder,
        )
        require_accepted(result)
        return result

    async def send_heavily(self) -> LoadResult:
        """Send batches with the heavy key, for longer than a round.

        Raises:
            MeasurementError: a request failed otherwise than by 503.
        """
        return await run_load(
            self.api.url,
            "costs",
            seconds=self.environment.sizes.seconds + HEAVY_STARTS_EARLIER_SECONDS,
            connections=HEAVY_CONNECTIONS,
            events=HEAVY_EVENTS,
            key=self.heavy_key,
            may_be_overloaded=True,
            folder=self.environment.folder,
        )

    async def send_both(self) -> tuple[LoadResult, LoadResult]:
        """Send with both keys, with the light one from when the log holds a batch of the heavy one.

        Returns:
            what was answered to the light key, and to the heavy key.

        Raises:
            MeasurementError: a request failed, or the heavy load ended before the light one.
            PromiseViolationError: a request of the light key was answered 503.
        """
        head = await self.environment.head_position(self.url)
        async with in_background(self.send_heavily()) as heavy:
            # Polled, since the events arrive in another process.
            while not heavy.done() and await self.environment.head_position(self.url) < head + HEAVY_EVENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            light = await self.send_lightly()
        return light, heavy.result()


def require_accepted(light: LoadResult) -> None:
    """Require that every request of the light key was accepted.

    Raises:
        PromiseViolationError: a request was answered 503.
    """
    if light.overloaded:
        raise PromiseViolationError(
            f"{light.overloaded:,} of {light.overloaded + light.requests:,} single events of the light key "
            f"were refused: {light.failure}"
        )


async def fair(environment: Environment) -> list[Figure]:
    """Measure single events of one key while another key sends the largest batches, against the same alone."""
    rounds: list[Round] = []
    absolute: defaultdict[str, list[float]] = defaultdict(list)
    async with environment.cloned_database(await environment.empty_template()) as url:
        keys = [await environment.create_key(url, name, Role.AGENT) for name in ("light", "heavy")]
        async with environment.api(url, with_keys=True) as api:
            service = _Service(environment, url, api, *keys)
            environment.show_step("fair: warm-up")
            await service.send_lightly()
            for number in range(1, environment.sizes.rounds + 1):
                environment.show_step(f"fair: round {number} of {environment.sizes.rounds}")
                alone = await service.send_lightly()
                together, heavy = await service.send_both()
                rounds.append(Round(together.requests / together.seconds, alone.requests / alone.seconds))
                for name, amount in (
                    ("latency p50 ms", together.p50_ms),
                    ("latency p99 ms", together.p99_ms),
                    ("heavy key events/s", heavy.requests * HEAVY_EVENTS / heavy.seconds),
                    ("heavy key 503", heavy.overloaded),
                ):
                    absolute[name].append(amount)
    return [
        ratio_figure(
            "fair",
            f"single events of one key on {LIGHT_CONNECTIONS} connections, while another key sends arrays of "
            f"{HEAVY_EVENTS:,} on {HEAVY_CONNECTIONS} connections",
            "the same without the other key",
            rounds,
            target=TARGET,
            unit="events/s",
            absolute=absolute,
            notes=["no request of the light key was answered 503; the heavy key waits for a second after a 503"],
        )
    ]
