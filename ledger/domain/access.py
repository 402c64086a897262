"""Who may do what: roles, and callers that are confined to campaigns."""

from enum import Enum
from typing import Literal
from uuid import UUID

import msgspec

from ledger.domain.campaign import CampaignState
from ledger.domain.errors import Forbidden, StreamNotFound, UnknownReference
from ledger.domain.event import Candidate
from ledger.domain.references import resolve_references
from ledger.domain.working_state import WorkingState

Permission = Literal["read", "append", "events", "audit", "admin"]


class Role(str, Enum):
    """What a key is for."""

    VIEWER = "viewer"
    AGENT = "agent"
    MANAGER = "manager"
    AUDITOR = "auditor"
    ADMIN = "admin"


PERMISSIONS: dict[Role, tuple[Permission, ...]] = {
    Role.VIEWER: ("read",),
    Role.AGENT: ("read", "append"),
    Role.MANAGER: ("read", "append", "events"),
    Role.AUDITOR: ("read", "events", "audit"),
    Role.ADMIN: ("read", "append", "events", "audit", "admin"),
}
"""`read`: read models, budgets, spend; `events`: the log and its feed; `audit`: the sealed log; `admin`: keys and
metrics."""

OF_WHOLE_LEDGER = ("audit", "admin")
"""What a confined key never may, whatever its role: it concerns everybody's campaigns."""


class Caller(msgspec.Struct, frozen=True):
    """Who is asking. `allowed_campaign_ids` are those that a confined caller sees; None: everything."""

    name: str
    role: Role
    allowed_campaign_ids: frozenset[UUID] | None = None

    def may(self, permission: Permission) -> bool:
        """Whether the role allows it."""
        if self.allowed_campaign_ids is not None and permission in OF_WHOLE_LEDGER:
            return False
        return permission in PERMISSIONS[self.role]

    def may_append(self, category: str) -> bool:
        """Whether the role allows appending such events."""
        return self.may("append") and (category != "campaign" or self.role is not Role.AGENT)

    def sees(self, campaign_id: UUID | None) -> bool:
        """Whether what counts for this campaign, or for none, is visible."""
        return self.allowed_campaign_ids is None or campaign_id in self.allowed_campaign_ids


LOCAL = Caller("local", Role.ADMIN)
"""Whoever asks where no keys are used."""


def require_stream_within(working_state: WorkingState, candidate: Candidate) -> None:
    """Refuse a confined sender's event on a stream that it does not see, as if there were none.

    Raises:
        StreamNotFound: the stream counts for another campaign or for none, or does not exist and should.
    """
    category, stream_id = candidate.event_type.category, candidate.stream_id
    there, campaign_id = _campaign_of_stream(working_state, category, stream_id)
    allowed = candidate.allowed_campaign_ids or frozenset()
    if (there and campaign_id not in allowed) or (not there and not candidate.event_type.opens_stream):
        raise StreamNotFound(category, stream_id)


def require_references_within(working_state: WorkingState, candidate: Candidate) -> None:
    """Refuse a confined sender's event that would count for another campaign or for none.

    Raises:
        Forbidden: it would.
        UnknownReference: it names a job that the sender does not see.
    """
    payload, event_type = candidate.payload, candidate.event_type
    allowed = candidate.allowed_campaign_ids or frozenset()
    named, job_id = getattr(payload, "campaign_id", None), getattr(payload, "agent_job_id", None)
    if named is not None and named not in allowed:
        raise Forbidden("this key is confined to other campaigns than the one named")
    if job_id is not None and _campaign_of_stream(working_state, "job", job_id)[1] not in allowed:
        raise UnknownReference("agent_job_id", job_id)
    if not event_type.opens_stream and not event_type.changes_campaign:
        return
    if event_type.category == "campaign" or resolve_references(working_state, named, job_id)[0] not in allowed:
        raise Forbidden("this key is confined to campaigns: name one of them")


def _campaign_of_stream(working_state: WorkingState, category: str, stream_id: UUID) -> tuple[bool, UUID | None]:
    """Whether a stream exists, and the campaign that it counts for."""
    if category == "cost":
        entry = working_state.entries.get(stream_id)
        return entry is not None, entry.campaign_id if entry else None
    head = working_state.heads.get((category, stream_id))
    if head is None:
        return False, None
    return True, stream_id if isinstance(head.state, CampaignState) else head.state.campaign_id
