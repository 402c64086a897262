"""`EventType`: everything the ledger knows about one type of event, and the categories of events.

Each noun's module lists its types in `EVENTS`; every other module reads these properties from `CATALOGUE` instead of
naming types.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec

from ledger.domain.codec import EventData, decode_hook
from ledger.domain.errors import IllegalTransition
from ledger.domain.lifecycle import DELETED, Transition, either

Category = Literal["campaign", "content", "job", "cost", "price", "ledger"]
"""The category of a stream and of its events: the part of the type name before the dot."""

CATEGORIES: tuple[Category, ...] = get_args(Category)

Upcaster = Callable[[dict[str, msgspec.Raw]], dict[str, msgspec.Raw]]
"""Turns the fields of one schema version, each as raw JSON, into the fields of the next version.

Data and free text arrive in one dictionary. If the free text of the event was erased, its fields are absent.
"""


def decoder_of(payload: type[EventData]) -> msgspec.json.Decoder[EventData]:
    """Return a decoder of the data of an event type."""
    return msgspec.json.Decoder(payload, dec_hook=decode_hook)


@dataclass(frozen=True, slots=True, eq=False)
class OlderVersion:
    """A schema version in which events are stored, but no longer written."""

    payload: type[EventData]
    """The struct of `data` in that version, by which stored bytes are checked. If it is still that of the newest
    version, keep a copy of it here before a field changes."""

    upcaster: Upcaster | None = None
    """Reads the fields as the next version would have written them; None if only the rules changed."""

    decoder: msgspec.json.Decoder[EventData] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", decoder_of(self.payload))


@dataclass(frozen=True, slots=True, eq=False)
class EventType:
    """One row of the catalogue of event types."""

    name: str
    """`category.verb`, such as `campaign.created`."""

    payload: type[EventData]
    """The struct of `data`, in the newest schema version."""

    transition: Transition
    """The statuses in which the event is possible, and the status that it leads to."""

    older: tuple[OlderVersion, ...] = ()
    """The older schema versions, the first of them version 1."""

    by_service: bool = False
    """Whether only the service writes such events; clients may not send them."""

    sets_budget: bool = False
    """Whether the field `budget` becomes the limit of the campaign or job."""

    changes_campaign: bool = False
    """Whether the event may change the campaign that an existing stream counts for."""

    ends_job: bool = False
    """Whether the event ends its job, so that the job's open holds are released with it."""

    amount_field: str | None = None
    """The field of `data` that holds the amount by which the event changes what is spent or held."""

    is_fact: bool = False
    """Whether the money is already spent: no budget refuses the event; `over_budget` names the exceeded limits."""

    opens_hold: bool = False
    """Whether the amount is held until the next event of the stream."""

    extends_hold: bool = False
    """Whether the event changes when a hold expires: the hold stays open, and no balance changes."""

    is_credit: bool = False
    """Whether the amount is money that came back: it counts with a negative sign."""

    denies_hold: bool = False
    """Whether the event records a refused hold: its stream is no budget entry, and it changes no balance."""

    names_stream: bool = False
    """Whether the event's data decides its stream, which the event opens or continues."""

    opens_stream: bool = field(init=False)
    """Whether the event is the first of its stream."""

    deletes_stream: bool = field(init=False)
    """Whether the event deletes what its stream describes."""

    category: str = field(init=False)
    schema_version: int = field(init=False)
    """The schema version in which this release writes such events."""

    decoder: msgspec.json.Decoder[EventData] = field(init=False)

    def __post_init__(self) -> None:
        # Fields rather than properties: an append reads them for every event.
        object.__setattr__(self, "opens_stream", not self.transition.allowed_from)
        object.__setattr__(self, "deletes_stream", self.transition.to == DELETED)
        object.__setattr__(self, "category", self.name.partition(".")[0])
        object.__setattr__(self, "schema_version", 1 + len(self.older))
        object.__setattr__(self, "decoder", decoder_of(self.payload))

    def require_stream(self, status: str | None) -> None:
        """Raise `IllegalTransition` if the first event of a stream meets an existing one, or a later event meets none.

        Args:
            status: The status of the stream; None if it does not exist.
        """
        if self.opens_stream:
            if status is not None:
                detail = f"{self.name} opens a stream, but this stream exists already and is {status}"
                raise IllegalTransition(detail, status, ())
        elif status is None and not self.names_stream:
            detail = f"{self.name} needs an existing stream, but this stream does not exist"
            raise IllegalTransition(detail, None, self.transition.allowed_from)

    def require_status(self, status: str | None) -> None:
        """Raise `IllegalTransition` if a later event of a stream is not possible in this status."""
        allowed_from = self.transition.allowed_from
        if allowed_from and status not in allowed_from and not (self.names_stream and status is None):
            detail = f"{self.name} is not possible in status {status}, only in {either(allowed_from)}"
            raise IllegalTransition(detail, status, allowed_from)
