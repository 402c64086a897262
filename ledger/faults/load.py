"""The load: agents that open jobs, spend, promise and correct, on campaigns that they share, while faults strike."""

import asyncio
import random
from collections import deque
from collections.abc import Callable

import aiohttp

from ledger.faults.client import Client, Event
from ledger.faults.witness import Acknowledged, Witness

CLIENTS = 8
REST_SECONDS_MAX = 0.04
"""Between two stories, so that the load leaves the machine to those who recover."""

TIGHT = "12"
"""A campaign's budget that is promised away soon: then many compete for the rest of it."""

REPEATED_MAX = 300


class Load:
    """Clients at work. They tell one story after another until they are told to stop."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Callable[[], list[str]], witness: Witness, chance: random.Random
    ) -> None:
        self.clients = [
            Client(session, urls, witness, random.Random(chance.getrandbits(64)))  # noqa: S311
            for _ in range(CLIENTS)
        ]
        self.stopping = False
        self._told: deque[list[Event]] = deque(maxlen=REPEATED_MAX)
        self._wide = ""
        self._tight = ""

    async def open(self) -> None:
        """Open the campaigns that everybody shares."""
        client = self.clients[0]
        self._wide = await self._campaign(client, "1000000")
        self._tight = await self._campaign(client, TIGHT)

    async def tell_stories(self, client: Client) -> None:
        """What one client does until it is told to stop; a story that is begun is told to its end."""
        stories = (self._hold, self._hold, self._job, self._costs, self._correct, self._lifecycle, self._again)
        while not self.stopping:
            await client.chance.choice(stories)(client)
            await asyncio.sleep(client.chance.uniform(0, REST_SECONDS_MAX))

    async def _tell(self, client: Client, *events: Event, may_be_refused: str = "") -> list[Acknowledged] | None:
        receipts = await client.tell(*events, may_be_refused=[may_be_refused])
        if receipts is not None:
            self._told.append(list(events))
        return receipts

    async def _campaign(self, client: Client, budget: str) -> str:
        created = client.event("campaign.created", {"name": "A campaign", "budget": budget, "start_date": "2025-01-01"})
        await self._tell(client, created, client.event("campaign.activated", stream_id=created["id"]))
        return str(created["id"])

    async def _hold(self, client: Client) -> None:
        """Ask for money where little is left; then spend it, give it back, or let it run out."""
        chance = client.chance
        cents = chance.randint(1, 200)
        asked = {
            "resource_type": "llm_api",
            "amount": f"{cents / 100:.2f}",
            "expires_in": chance.choice([1, 2, 900]),
            "campaign_id": self._tight,
        }
        reserved = client.event("cost.reserved", asked)
        if await self._tell(client, reserved, may_be_refused="budget-exceeded") is None:
            if chance.random() < 0.2:
                self._tight = await self._campaign(client, TIGHT)
            return
        what = chance.choice(["cost.settled", "cost.settled", "cost.released", ""])
        if what == "cost.settled":
            spent = {"cost": f"{chance.randint(0, cents) / 100:.2f}", "tokens_used": chance.randint(0, 9)}
            await self._tell(client, client.event(what, spent, stream_id=reserved["id"]))
        elif what:
            given_back = client.event(what, {"reason": "Not needed"}, stream_id=reserved["id"])
            # It may have run out.
            await self._tell(client, given_back, may_be_refused="illegal-transition")

    async def _job(self, client: Client) -> None:
        """A job from its beginning to its end, partly in batches; its end releases what is still held."""
        queued = client.event(
            "job.queued",
            {"agent_type": "analyst", "input_data": {"topic": "t"}, "campaign_id": self._wide, "budget": "2"},
        )
        of_job = {"resource_type": "web_search", "agent_job_id": queued["id"]}
        kept = client.event("cost.reserved", of_job | {"amount": "0.75"})
        settled = client.event("cost.reserved", of_job | {"amount": "0.5"})
        await self._tell(
            client,
            queued,
            client.event("job.started", stream_id=queued["id"], expected_version=1),
            kept,
            settled,
            client.event("cost.recorded", of_job | {"cost": "0.25", "description": "A search"}),
        )
        for version in range(2, 2 + client.chance.randint(0, 3)):
            progress = {"progress": str(version / 10), "message": "Going on"}
            await self._tell(
                client, client.event("job.progressed", progress, stream_id=queued["id"], expected_version=version)
            )
        written = {"title": "A title", "content": "Text " * client.chance.randint(1, 50), "content_type": "blog"}
        await self._tell(
            client,
            client.event("cost.settled", {"cost": "0.4"}, stream_id=settled["id"]),
            client.event("content.created", written | {"agent_job_id": queued["id"]}),
            client.event(client.chance.choice(["job.completed", "job.cancelled"]), stream_id=queued["id"]),
        )

    async def _costs(self, client: Client) -> None:
        """Many costs, each judged by itself; one of them cannot be."""
        costs = [
            client.event("cost.recorded", {"resource_type": "embedding", "cost": "0.0001", "campaign_id": campaign_id})
            for campaign_id in [self._wide] * client.chance.randint(2, 8)
        ]
        unknown = client.event("cost.recorded", {"resource_type": "media", "cost": "1", "campaign_id": self._nobodys()})
        await client.tell_each(*costs, unknown, may_be_refused=["unknown-reference"])

    def _nobodys(self) -> str:
        return "00000000-0000-4000-8000-000000000000"

    async def _correct(self, client: Client) -> None:
        """A cost that nobody is asked for, past the limit or not, and its correction."""
        spent = client.event(
            "cost.recorded", {"resource_type": "llm_api", "cost": "0.3", "campaign_id": self._wide, "tokens_used": 9}
        )
        await self._tell(client, spent)
        less = {"amount": "-0.1", "tokens_used": -3, "reason": "Counted twice"}
        if receipts := await self._tell(client, client.event("cost.adjusted", less, stream_id=spent["id"])):
            await client.see(f"/v1/budget-entries/{spent['id']}", receipts[0].position, cost="0.2", tokens_used=6)

    async def _lifecycle(self, client: Client) -> None:
        """The statuses and numbers of a campaign, each change at the version that the client knows."""
        campaign_id = await self._campaign(client, "1")
        changes: list[tuple[str, Event]] = [
            ("campaign.metrics_recorded", {"impressions": 10, "clicks": 1}),
            ("campaign.paused", {"reason": "A pause"}),
            ("campaign.activated", {}),
        ]
        for version, (type_, data) in enumerate(changes, 2):
            await self._tell(client, client.event(type_, data, stream_id=campaign_id, expected_version=version))

    async def _again(self, client: Client) -> None:
        """Send again what was acknowledged before: the receipts must be the same."""
        if self._told:
            await client.repeat(client.chance.choice(list(self._told)))
