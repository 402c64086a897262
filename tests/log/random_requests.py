"""Random requests on a few streams: many are duplicates, past a budget, or out of order."""

from random import Random
from typing import Any

from ledger.domain.event import Request
from tests.events import campaign, content, cost, credit, follow, job, reserve
from tests.log.helpers import request

FOLLOWING = {
    "campaign.created": ["campaign.activated", "campaign.paused", "campaign.budget_changed"],
    "content.created": ["content.submitted", "content.approved"],
    "job.queued": ["job.started", "job.completed", "job.cancelled"],
    "cost.reserved": ["cost.settled", "cost.released", "cost.adjusted", "cost.extended"],
    "cost.recorded": ["cost.adjusted"],
    "cost.credited": ["cost.adjusted"],
}
"""What may follow an event that opens a stream, whether or not it is allowed at the time."""


class RandomRequests:
    """Draws requests. Later ones refer to the streams of earlier ones."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._opened: dict[str, list[dict[str, Any]]] = {type_: [] for type_ in FOLLOWING}
        self._sent: list[Request] = []

    def next(self) -> Request:
        """Return the next request; one in eight was sent before."""
        if self._sent and self._random.random() < 1 / 8:
            return self._random.choice(self._sent)
        size = self._random.choice([1, 1, 1, 2, 5])
        drawn = request(*(self._event() for _ in range(size)), independent=self._random.random() < 1 / 2)
        self._sent.append(drawn)
        return drawn

    def _event(self) -> dict[str, Any]:
        type_ = self._random.choice([*FOLLOWING, "cost.reserved", "cost.reserved"])
        if self._opened[type_] and self._random.random() < 1 / 2:
            return self._follow(self._random.choice(self._opened[type_]))
        opened = self._open(type_)
        self._opened[type_].append(opened)
        return opened

    def _open(self, type_: str) -> dict[str, Any]:
        if type_ == "campaign.created":
            return campaign(budget=self._amount(5, 20))
        if type_ == "content.created":
            return content()
        if type_ == "job.queued":
            return job(
                **self._references("campaign.created"), **({"budget": self._amount(2, 8)} if self._coin() else {})
            )
        make = {"cost.reserved": reserve, "cost.recorded": cost, "cost.credited": credit}[type_]
        return make(self._amount(1, 4), **self._references("campaign.created"), **self._references("job.queued"))

    def _follow(self, opened: dict[str, Any]) -> dict[str, Any]:
        type_ = self._random.choice(FOLLOWING[opened["type"]])
        data = {
            "campaign.budget_changed": {"budget": self._amount(5, 30)},
            "content.approved": {},
            "job.completed": {"output_data": {}},
            "cost.settled": {"cost": self._amount(0, 4)},
            "cost.adjusted": {"amount": self._amount(-1, 2), "reason": "A correction"},
            "cost.extended": {"expires_in": self._random.randint(1, 900)},
        }
        version = {"expected_version": self._random.randint(1, 3)} if self._random.random() < 1 / 8 else {}
        return follow(opened, type_, data.get(type_), **version)

    def _references(self, type_: str) -> dict[str, str]:
        opened = self._opened[type_]
        name = "campaign_id" if type_ == "campaign.created" else "agent_job_id"
        return {name: self._random.choice(opened)["id"]} if opened and self._coin() else {}

    def _amount(self, least: int, most: int) -> str:
        return str(self._random.randint(4 * least, 4 * most) / 4)

    def _coin(self) -> bool:
        return self._random.random() < 1 / 2
