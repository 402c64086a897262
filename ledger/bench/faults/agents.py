"""The workload under faults: agents run jobs, record costs and compete for holds on shared campaigns."""

import asyncio
import random
from collections import deque
from collections.abc import Callable

import aiohttp

from ledger.bench.faults.history import AcknowledgedEvent, History
from ledger.bench.faults.retrying_client import Event, RetryingClient

CLIENTS = 8

REST_SECONDS_MAX = 0.04
"""Pause between two operations, so that the load leaves processor time to the processes that recover."""

TIGHT_BUDGET = "12"
"""A budget that is soon used up by holds: then many compete for the rest."""

RESENDABLE_MAX = 300

UNKNOWN_CAMPAIGN = "00000000-0000-4000-8000-000000000000"


class Agents:
    """Clients that perform one random operation after the other until `stopping` is set."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Callable[[], list[str]], history: History, rng: random.Random
    ) -> None:
        """Prepare the clients.

        Args:
            session: the HTTP session, with the key.
            urls: returns the base URLs of the API processes at the moment.
            history: receives the outcomes.
            rng: seeds the random numbers of each client.
        """
        self.clients = [
            RetryingClient(session, urls, history, random.Random(rng.getrandbits(64)))  # noqa: S311
            for _ in range(CLIENTS)
        ]
        self.stopping = False
        self._acknowledged: deque[list[Event]] = deque(maxlen=RESENDABLE_MAX)
        self._wide_campaign = ""
        self._tight_campaign = ""

    async def create_campaigns(self) -> None:
        """Create the campaigns that all clients share."""
        client = self.clients[0]
        self._wide_campaign = await self._create_campaign(client, "1000000")
        self._tight_campaign = await self._create_campaign(client, TIGHT_BUDGET)

    async def run_client(self, client: RetryingClient) -> None:
        """Perform random operations with a client until `stopping` is set; the last one is completed."""
        operations = (self._hold, self._hold, self._job, self._costs, self._correct, self._lifecycle, self._resend)
        while not self.stopping:
            await client.rng.choice(operations)(client)
            await asyncio.sleep(client.rng.uniform(0, REST_SECONDS_MAX))

    async def _append(
        self, client: RetryingClient, *events: Event, may_be_refused: str = ""
    ) -> list[AcknowledgedEvent] | None:
        receipts = await client.append(*events, may_be_refused=[may_be_refused])
        if receipts is not None:
            self._acknowledged.append(list(events))
        return receipts

    async def _create_campaign(self, client: RetryingClient, budget: str) -> str:
        created = client.event("campaign.created", {"name": "A campaign", "budget": budget, "start_date": "2025-01-01"})
        await self._append(client, created, client.event("campaign.activated", stream_id=created["id"]))
        return str(created["id"])

    async def _hold(self, client: RetryingClient) -> None:
        """Reserve on a nearly exhausted budget; then settle, release, or let the hold expire."""
        rng = client.rng
        cents = rng.randint(1, 200)
        hold = {
            "resource_type": "llm_api",
            "amount": f"{cents / 100:.2f}",
            "expires_in": rng.choice([1, 2, 900]),
            "campaign_id": self._tight_campaign,
        }
        reserved = client.event("cost.reserved", hold)
        if await self._append(client, reserved, may_be_refused="budget-exceeded") is None:
            if rng.random() < 0.2:
                self._tight_campaign = await self._create_campaign(client, TIGHT_BUDGET)
            return
        next_type = rng.choice(["cost.settled", "cost.settled", "cost.released", ""])
        if rng.random() < 0.3:
            # The hold may have expired.
            extended = client.event("cost.extended", {"expires_in": rng.choice([1, 900])}, stream_id=reserved["id"])
            await self._append(client, extended, may_be_refused="illegal-transition")
        if next_type == "cost.settled":
            spent = {"cost": f"{rng.randint(0, cents) / 100:.2f}", "tokens_used": rng.randint(0, 9)}
            await self._append(client, client.event(next_type, spent, stream_id=reserved["id"]))
        elif next_type:
            released = client.event(next_type, {"reason": "Not needed"}, stream_id=reserved["id"])
            # The hold may have expired.
            await self._append(client, released, may_be_refused="illegal-transition")

    async def _job(self, client: RetryingClient) -> None:
        """Run a job from start to end, partly in batches; its end releases the hold that is left."""
        queued = client.event(
            "job.queued",
            {"agent_type": "analyst", "input_data": {"topic": "t"}, "campaign_id": self._wide_campaign, "budget": "2"},
        )
        cost_of_job = {"resource_type": "web_search", "agent_job_id": queued["id"]}
        hold_left = client.event("cost.reserved", cost_of_job | {"amount": "0.75"})
        hold_settled = client.event("cost.reserved", cost_of_job | {"amount": "0.5"})
        await self._append(
            client,
            queued,
            client.event("job.started", stream_id=queued["id"], expected_version=1),
            hold_left,
            hold_settled,
            client.event("cost.recorded", cost_of_job | {"cost": "0.25", "description": "A search"}),
        )
        for version in range(2, 2 + client.rng.randint(0, 3)):
            progress = {"progress": str(version / 10), "message": "Going on"}
            await self._append(
                client, client.event("job.progressed", progress, stream_id=queued["id"], expected_version=version)
            )
        content = {"title": "A title", "content": "Text " * client.rng.randint(1, 50), "content_type": "blog"}
        await self._append(
            client,
            client.event("cost.settled", {"cost": "0.4"}, stream_id=hold_settled["id"]),
            client.event("content.created", content | {"agent_job_id": queued["id"]}),
            client.event(client.rng.choice(["job.completed", "job.cancelled"]), stream_id=queued["id"]),
        )

    async def _costs(self, client: RetryingClient) -> None:
        """Append many costs, each decided separately; one of them refers to an unknown campaign."""
        costs = [
            client.event("cost.recorded", {"resource_type": "embedding", "cost": "0.0001", "campaign_id": campaign_id})
            for campaign_id in [self._wide_campaign] * client.rng.randint(2, 8)
        ]
        unknown = client.event(
            "cost.recorded", {"resource_type": "media", "cost": "1", "campaign_id": UNKNOWN_CAMPAIGN}
        )
        await client.append_independently(*costs, unknown, may_be_refused=["unknown-reference"])

    async def _correct(self, client: RetryingClient) -> None:
        """Record a cost and a correction of it, and check the row."""
        cost = client.event(
            "cost.recorded",
            {"resource_type": "llm_api", "cost": "0.3", "campaign_id": self._wide_campaign, "tokens_used": 9},
        )
        await self._append(client, cost)
        correction = {"amount": "-0.1", "tokens_used": -3, "reason": "Counted twice"}
        adjusted = client.event("cost.adjusted", correction, stream_id=cost["id"])
        if receipts := await self._append(client, adjusted):
            await client.check_row(f"/v1/budget-entries/{cost['id']}", receipts[0].position, cost="0.2", tokens_used=6)
        credit = {"resource_type": "llm_api", "amount": "0.2", "campaign_id": self._wide_campaign, "reason": "A refund"}
        credited = client.event("cost.credited", credit)
        if receipts := await self._append(client, credited):
            await client.check_row(f"/v1/budget-entries/{credited['id']}", receipts[0].position, cost="-0.2")

    async def _lifecycle(self, client: RetryingClient) -> None:
        """Change the status and the metrics of a new campaign, each change with `expected_version`."""
        campaign_id = await self._create_campaign(client, "1")
        changes: list[tuple[str, Event]] = [
            ("campaign.metrics_recorded", {"impressions": 10, "clicks": 1}),
            ("campaign.paused", {"reason": "A pause"}),
            ("campaign.activated", {}),
        ]
        for version, (type_, data) in enumerate(changes, 2):
            await self._append(client, client.event(type_, data, stream_id=campaign_id, expected_version=version))

    async def _resend(self, client: RetryingClient) -> None:
        """Send acknowledged events again: the receipts must be the same."""
        if self._acknowledged:
            await client.resend(client.rng.choice(list(self._acknowledged)))
