"""GET /metrics: Prometheus metrics of the log, the read models, the sealer, holds and connections."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from ledger.api.routes import PLAIN, Route
from ledger.api.services import Services
from ledger.audit import tree_store
from ledger.audit.reverification import read_reverification
from ledger.log.log_clock import read_lead
from projections.queries import projection_status


async def get_metrics(request: web.Request, services: Services) -> web.StreamResponse:
    """Respond with the current metrics; the database is queried once per scrape."""
    async with services.database.connection() as connection:
        projection = await projection_status(connection)
        seal = await tree_store.read_seal_status(connection)
        reverification = await read_reverification(connection)
        holds = await connection.fetchval("SELECT count(*) FROM ledger.holds")
        lead = await read_lead(connection, datetime.now(UTC))
    registry = CollectorRegistry()

    def gauge(name: str, help_text: str, value: float) -> None:
        Gauge(name, help_text, registry=registry).set(value)

    gauge("ledger_head_position", "Position of the last event in the log.", projection.head)
    gauge("ledger_projection_position", "Position of the last event that the read models reflect.", projection.position)
    gauge("ledger_projection_lag_events", "Events not yet in the read models.", projection.lag_events)
    gauge(
        "ledger_projection_lag_seconds",
        "Age of the oldest event not yet in the read models.",
        projection.lag_seconds,
    )
    gauge("ledger_sealed_events", "Events under the last signed checkpoint.", seal.size)
    gauge("ledger_seal_lag_seconds", "Age of the oldest event not yet sealed.", max(0.0, seal.lag_seconds))
    gauge("ledger_seal_refused", "1 while the sealer refuses to sign.", seal.refusal is not None)
    last_pass = reverification.last_full_pass_at
    gauge(
        "ledger_reverified_position",
        "Position that the background re-verification has reached.",
        reverification.position,
    )
    gauge(
        "ledger_reverification_last_pass_timestamp_seconds",
        "When the re-verification last reached the end of the sealed log; 0 if never.",
        last_pass.timestamp() if last_pass is not None else 0,
    )
    gauge(
        "ledger_log_changed_position",
        "Position of a sealed event that was changed; 0 if none was found.",
        reverification.changed_position or 0,
    )
    statuses = Gauge("ledger_projection_status", "1 for the current status.", ["status"], registry=registry)
    for status in ("running", "failing", "paused"):
        statuses.labels(status).set(projection.status == status)
    failure = projection.failure
    stopped = Gauge(
        "ledger_projection_failed_position",
        "Position of the event that stops the read models, by event type and error; 0 if the error has another cause.",
        ["type", "error"],
        registry=registry,
    )
    if failure is not None:
        stopped.labels(failure.type, failure.error[:200]).set(failure.position)
    gauge("ledger_open_holds", "Holds that are not settled, released or expired.", holds)
    gauge("ledger_log_clock_ahead_seconds", "How far the last event is ahead of this machine's clock.", lead)
    in_use = services.database.connections_in_use
    gauge("ledger_pool_connections", "Database connections of this process in use.", in_use)
    body = generate_latest(services.telemetry.registry) + generate_latest(registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


ROUTES = [
    Route(
        "GET",
        "/metrics",
        get_metrics,
        "Read the metrics.",
        {200: Annotated[str, msgspec.Meta(description="The metrics in the text format of Prometheus.")]},
        problems=("database-unavailable",),
        media=(PLAIN,),
        needs="metrics",
    )
]
