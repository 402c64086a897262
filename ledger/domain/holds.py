"""Open holds by stream, with an index by job, so that the end of a job finds its holds directly."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID


class Hold(NamedTuple):
    """An open hold; its key is the stream of its entry."""

    amount: Decimal
    campaign_id: UUID | None
    agent_job_id: UUID | None
    expires_at: datetime


class Holds(dict[UUID, Hold]):
    """Holds by stream. The index by job is kept by item assignment and `pop`; use no other method to change it."""

    def __init__(self) -> None:
        super().__init__()
        self._by_job: dict[UUID, dict[UUID, None]] = {}

    def of_job(self, job_id: UUID) -> Iterable[UUID]:
        """Return the streams of the job's open holds, the oldest first."""
        return self._by_job.get(job_id, ())

    def __setitem__(self, stream_id: UUID, hold: Hold) -> None:
        super().__setitem__(stream_id, hold)
        if hold.agent_job_id is not None:
            self._by_job.setdefault(hold.agent_job_id, {})[stream_id] = None

    def pop(self, stream_id: UUID, default: Any = None) -> Any:
        """Remove a hold and return it, or the default if there is none."""
        hold = super().pop(stream_id, None)
        if hold is None:
            return default
        if hold.agent_job_id is not None:
            streams = self._by_job[hold.agent_job_id]
            del streams[stream_id]
            if not streams:
                del self._by_job[hold.agent_job_id]
        return hold
