"""Roles and permissions of API keys, and the checks for keys that are restricted to certain campaigns."""

from enum import Enum
from typing import Literal
from uuid import UUID

import msgspec

from ledger.domain.campaign import CampaignState
from ledger.domain.codec import EventData
from ledger.domain.cost import CostAdjusted
from ledger.domain.errors import Forbidden, StreamNotFound, UnknownReference
from ledger.domain.event import Candidate
from ledger.domain.job import JobQueued
from ledger.domain.references import resolve_parent, resolve_references
from ledger.domain.working_state import WorkingState

Permission = Literal["read", "append", "prices", "events", "audit", "metrics", "admin"]


class Role(str, Enum):
    """The role of a key."""

    VIEWER = "viewer"
    AGENT = "agent"
    MANAGER = "manager"
    AUDITOR = "auditor"
    METRICS = "metrics"
    ADMIN = "admin"


PERMISSIONS: dict[Role, tuple[Permission, ...]] = {
    Role.VIEWER: ("read",),
    Role.AGENT: ("read", "append"),
    Role.MANAGER: ("read", "append", "prices", "events"),
    Role.AUDITOR: ("read", "events", "audit"),
    Role.METRICS: ("metrics",),
    Role.ADMIN: ("read", "append", "prices", "events", "audit", "metrics", "admin"),
}
"""`read`: read models, budgets, spend; `append`: new events; `prices`: new prices, and costs by them; `events`: the log
and its feed; `audit`: the sealed log; `metrics`: the metrics of the service; `admin`: keys."""

WHOLE_LEDGER = ("prices", "audit", "metrics", "admin")
"""Permissions that no restricted key has, whatever its role: they concern the campaigns of all clients."""


class Caller(msgspec.Struct, frozen=True):
    """The client that sends a request: the name and role of its key, and the campaigns that it may use.

    `allowed_campaign_ids` is None if the key is not restricted.
    """

    name: str
    role: Role
    allowed_campaign_ids: frozenset[UUID] | None = None

    def may(self, permission: Permission) -> bool:
        """Whether the caller has a permission."""
        if self.allowed_campaign_ids is not None and permission in WHOLE_LEDGER:
            return False
        return permission in PERMISSIONS[self.role]

    def may_append(self, category: str) -> bool:
        """Whether the caller may append events of a category; agents may not append campaign events."""
        if category == "price":
            return self.may("prices")
        return self.may("append") and (category != "campaign" or self.role is not Role.AGENT)

    def may_see(self, campaign_id: UUID | None) -> bool:
        """Whether the caller may see what counts for a campaign, or for none (None)."""
        return self.allowed_campaign_ids is None or campaign_id in self.allowed_campaign_ids


def require_may_append(caller: Caller, candidate: Candidate) -> None:
    """Raise `Forbidden` if the role of the caller does not allow the event, whatever the state of the ledger is.

    Agents may not append what makes a cost less: a credit, or a negative adjustment.
    """
    event_type, payload, restricted = candidate.event_type, candidate.payload, ""
    if not caller.may_append(event_type.category):
        what = f"{event_type.category} events"
        if event_type.category == "price" and "prices" in PERMISSIONS[caller.role]:
            restricted = " that is restricted to certain campaigns"
    elif caller.role is not Role.AGENT:
        return
    elif event_type.is_credit:
        what = event_type.name
    elif isinstance(payload, CostAdjusted) and payload.amount < 0:
        what = "a cost.adjusted with a negative amount"
    else:
        return
    raise Forbidden(f"a key with role `{caller.role.value}`{restricted} may not append {what}")


LOCAL = Caller("local", Role.ADMIN)
"""The caller of every request if no keys are used."""


def require_stream_allowed(working_state: WorkingState, candidate: Candidate) -> None:
    """Refuse an event of a restricted key on a stream that the key may not see.

    An opening event is first checked as if the stream did not exist: a refusal then does not reveal the stream.

    Raises:
        Forbidden, UnknownReference: An opening event names a campaign or job that the key may not use.
        StreamNotFound: The stream counts for another campaign or for none, or a later event has no stream.
    """
    category, stream_id = candidate.event_type.category, candidate.stream_id
    exists, campaign_id = campaign_of_stream(working_state, category, stream_id)
    allowed = candidate.allowed_campaign_ids or frozenset()
    if exists and campaign_id in allowed:
        return
    if candidate.event_type.opens_stream:
        require_references_allowed(working_state, candidate)
    if exists or not candidate.event_type.opens_stream:
        raise StreamNotFound(category, stream_id)


def require_references_allowed(working_state: WorkingState, candidate: Candidate) -> None:
    """Refuse an event of a restricted key that would count for a campaign that is not allowed, or for none.

    Raises:
        Forbidden: The event would count for such a campaign, or for none.
        UnknownReference: The event names a job that the key may not see.
    """
    payload, event_type = candidate.payload, candidate.event_type
    allowed = candidate.allowed_campaign_ids or frozenset()
    named = getattr(payload, "campaign_id", None)
    if named is not None and named not in allowed:
        raise Forbidden(f"this key is restricted to certain campaigns, and {named} is not one of them")
    for field in ("agent_job_id", "parent_job_id"):
        job_id = getattr(payload, field, None)
        if job_id is not None and campaign_of_stream(working_state, "job", job_id)[1] not in allowed:
            raise UnknownReference(field, job_id)
    if not event_type.opens_stream and not event_type.changes_campaign:
        return
    if event_type.category == "campaign" or _counts_for(working_state, payload) not in allowed:
        raise Forbidden("this key is restricted to certain campaigns; set `campaign_id` to one of them")


def _counts_for(working_state: WorkingState, payload: EventData) -> UUID | None:
    """Return the campaign that an event counts for, named or inherited; None if none."""
    named = getattr(payload, "campaign_id", None)
    if isinstance(payload, JobQueued):
        return resolve_parent(working_state, named, payload.parent_job_id)[0]
    return resolve_references(working_state, named, getattr(payload, "agent_job_id", None))[0]


def campaign_of_stream(working_state: WorkingState, category: str, stream_id: UUID) -> tuple[bool, UUID | None]:
    """Return whether a stream exists, and the campaign that it counts for."""
    if category == "cost":
        entry = working_state.entries.get(stream_id)
        return entry is not None, entry.campaign_id if entry else None
    head = working_state.heads.get((category, stream_id))
    if head is None:
        return False, None
    return True, stream_id if isinstance(head.state, CampaignState) else getattr(head.state, "campaign_id", None)
