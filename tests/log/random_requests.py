"""Random requests on a few streams: many are duplicates, past a budget, or out of order."""

from random import Random
from typing import Any

from ledger.domain.event import Request
from tests.events import campaign, content, cost, credit, follow, job, price, reserve
from tests.log.helpers import request

FOLLOWING = {
    "campaign.created": ["campaign.activated", "campaign.paused", "campaign.budget_changed"],
    "content.created": ["content.submitted", "content.approved"],
    "job.queued": ["job.started", "job.completed", "job.cancelled"],
    "cost.reserved": ["cost.settled", "cost.released", "cost.adjusted", "cost.extended"],
    "cost.recorded": ["cost.adjusted"],
    "cost.credited": ["cost.adjusted"],
    "price.published": ["price.withdrawn"],
}
"""What may follow an event that opens a stream, whether or not it is allowed at the time."""


MODELS = ["m1", "m2"]


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
        if type_ == "price.published":
            return self._price()
        if type_ == "job.queued":
            return job(
                **self._references("campaign.created"), **({"budget": self._amount(2, 8)} if self._coin() else {})
            )
        make = {"cost.reserved": reserve, "cost.recorded": cost, "cost.credited": credit}[type_]
        opened = make(self._amount(1, 4), **self._references("campaign.created"), **self._references("job.queued"))
        if type_ != "cost.credited" and self._coin():
            opened["data"] |= self._call("amount" if type_ == "cost.reserved" else "cost")
        return opened

    def _price(self) -> dict[str, Any]:
        """Draw a price of one of two models, by name or by prefix."""
        prefixes = {"prefixes": ["m"]} if self._coin() else {}
        return price(self._random.choice(MODELS), self._amount(0, 3), effective_from=self._time(), **prefixes)

    def _call(self, amount: str) -> dict[str, Any]:
        """Draw a call without an amount: the service computes it if there is a price."""
        usage = {"input_tokens": self._random.choice([1, 500_000, 1_000_000])}
        return {amount: None, "provider": "openai", "model_used": self._random.choice([*MODELS, "mx"]), "usage": usage}

    def _time(self) -> str:
        return f"202{self._random.randint(4, 6)}-01-01T00:00:00Z"

    def _follow(self, opened: dict[str, Any]) -> dict[str, Any]:
        type_ = self._random.choice(FOLLOWING[opened["type"]])
        data = {
            "campaign.budget_changed": {"budget": self._amount(5, 30)},
            "content.approved": {},
            "job.completed": {"output_data": {}},
            "cost.settled": {"cost": self._amount(0, 4)} if self._coin() else {"usage": {"input_tokens": 1_000_000}},
            "cost.adjusted": {"amount": self._amount(-1, 2), "reason": "A correction"},
            "cost.extended": {"expires_in": self._random.randint(1, 900)},
            "price.withdrawn": {"effective_from": self._time()},
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
