"""Sample data as events: three campaigns, three content assets, three jobs and their costs."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import msgspec

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.errors import Refused
from ledger.domain.event import Candidate, Request
from ledger.log.appender import Appender
from ledger.log.prepare import prepare

_NAMESPACE = UUID("b52e4b5e-8a4e-5d0b-8d6b-6f2d5ef3a3c4")

EXISTING_STREAMS = "SELECT DISTINCT stream_id FROM ledger.events WHERE stream_id = ANY ($1)"


class _Stream(NamedTuple):
    """The events of one stream: (type, when, data), oldest first."""

    name: str
    events: list[tuple[str, datetime, dict[str, Any]]]

    @property
    def id(self) -> UUID:
        return stream_id(self.name)


def stream_id(name: str) -> UUID:
    """Return the id of a sample stream, which is the same in every ledger."""
    return uuid5(_NAMESPACE, name)


def _campaign(name: str, now: datetime, days: tuple[int, int | None], budget: str, status: str) -> _Stream:
    start, end = days
    data = {"name": name, "budget": budget, "start_date": _date(now, start)}
    if end is not None:
        data["end_date"] = _date(now, end)
    created = now + timedelta(days=min(start, 0))
    events = [("campaign.created", created, data)]
    if status == "active":
        events.append(("campaign.activated", created, {}))
    return _Stream(f"campaign {name}", events)


def _date(now: datetime, days: int) -> str:
    return (now + timedelta(days=days)).isoformat()


def _streams(now: datetime) -> list[_Stream]:
    """Return all streams, each after those that it refers to."""
    minutes = {ago: now - timedelta(minutes=ago) for ago in (120, 115, 60, 55, 5)}
    launch, holiday = stream_id("campaign Q4 Product Launch"), stream_id("campaign Holiday Email Series")
    writer, mailer = stream_id("job seo_writer completed"), stream_id("job email_marketer completed")
    # Revenue is (roi + 1) x spend. The spend consists of the costs of the jobs and of media.
    metrics = {
        launch: {"impressions": 125_000, "clicks": 3_200, "conversions": 145, "revenue": "8250"},
        holiday: {"impressions": 45_000, "clicks": 1_800, "conversions": 67, "revenue": "3360"},
    }
    campaigns = [
        _campaign("Q4 Product Launch", now, (-30, 60), "10000", "active"),
        _campaign("Holiday Email Series", now, (-15, 45), "5000", "active"),
        _campaign("Content Marketing 2025", now, (30, None), "25000", "draft"),
    ]
    for campaign in campaigns:
        if campaign.id in metrics:
            campaign.events.append(("campaign.metrics_recorded", now, metrics[campaign.id]))
    return [
        *campaigns,
        _job("seo_writer completed", "seo_writer", launch, minutes[120], minutes[115], {"topic": "AI in marketing"}),
        _job("email_marketer completed", "email_marketer", holiday, minutes[60], minutes[55], {"audience": "all"}),
        _job("seo_writer running", "seo_writer", None, minutes[5], None, {"topic": "content calendars"}),
        _asset(
            "10 Ways AI is Transforming Marketing in 2025",
            "From drafting to measuring: ten places where agents already do the work.",
            "blog",
            {"campaign_id": str(launch), "agent_job_id": str(writer)},
            {
                "meta_description": "How AI agents change marketing, in ten examples.",
                "keywords": ["AI", "marketing", "agents"],
                "word_count": 1200,
            },
            [(status, minutes[115]) for status in ("submitted", "approved", "published")],
            minutes[115],
        ),
        _asset(
            "Holiday Sale Announcement",
            "Our biggest sale of the year starts on Friday.",
            "email",
            {"campaign_id": str(holiday), "agent_job_id": str(mailer)},
            {"subject": "The holiday sale starts now", "preview_text": "Up to 40 % off until Sunday"},
            [(status, minutes[55]) for status in ("submitted", "approved")],
            minutes[55],
        ),
        _asset(
            "Product Launch Teaser",
            "Something new is coming. Watch this space.",
            "social",
            {"campaign_id": str(launch)},
            {"platform": "twitter", "character_count": 240},
            [],
            now,
        ),
        _cost("seo_writer completed", "openai_api", "0.025", 2500, {"agent_job_id": str(writer)}, minutes[115]),
        _cost("email_marketer completed", "openai_api", "0.012", 1200, {"agent_job_id": str(mailer)}, minutes[55]),
        _cost(
            "seo_writer running",
            "openai_api",
            "0.005",
            500,
            {"agent_job_id": str(stream_id("job seo_writer running"))},
            now,
        ),
        _cost("media Q4 Product Launch", "media", "2499.975", 0, {"campaign_id": str(launch)}, now),
        _cost("media Holiday Email Series", "media", "1199.988", 0, {"campaign_id": str(holiday)}, now),
    ]


def _job(
    name: str,
    agent: str,
    campaign: UUID | None,
    started: datetime,
    completed: datetime | None,
    input_data: dict[str, Any],
) -> _Stream:
    data: dict[str, Any] = {"agent_type": agent, "input_data": input_data}
    if campaign is not None:
        data["campaign_id"] = str(campaign)
    events: list[tuple[str, datetime, dict[str, Any]]] = [("job.queued", started, data), ("job.started", started, {})]
    if completed is not None:
        events.append(("job.completed", completed, {"output_data": {"result": "done"}}))
    return _Stream(f"job {name}", events)


def _asset(
    title: str,
    content: str,
    kind: str,
    references: dict[str, str],
    metadata: dict[str, Any],
    steps: list[tuple[str, datetime]],
    created: datetime,
) -> _Stream:
    data = {"title": title, "content": content, "content_type": kind, "metadata": metadata, **references}
    later: list[tuple[str, datetime, dict[str, Any]]] = [(f"content.{step}", when, {}) for step, when in steps]
    return _Stream(f"content {title}", [("content.created", created, data), *later])


def _cost(name: str, resource: str, amount: str, tokens: int, references: dict[str, str], when: datetime) -> _Stream:
    data: dict[str, Any] = {"resource_type": resource, "cost": amount, **references}
    if tokens:
        data |= {"tokens_used": tokens, "model_used": "gpt-4o", "provider": "openai"}
    return _Stream(f"cost {name}", [("cost.recorded", when, data)])


def _candidates(stream: _Stream, actor: str) -> list[Candidate]:
    return [
        prepare(
            CATALOGUE[name],
            CATALOGUE[name].decoder.decode(msgspec.json.encode(data)),
            actor=actor,
            event_id=uuid5(stream.id, name),
            stream_id=stream.id,
            occurred_at=when,
        )
        for name, when, data in stream.events
    ]


async def seed(database: Database, appender: Appender, actor: str = "local") -> int:
    """Append the sample data, all or nothing. Streams that exist are skipped, so that a second call has no effect.

    Args:
        database: of the log.
        appender: appends the events.
        actor: the `actor` of the events.

    Returns:
        the number of recorded events.
    """
    streams = _streams(datetime.now(UTC))
    async with database.connection() as connection:
        existing = {
            row["stream_id"] for row in await connection.fetch(EXISTING_STREAMS, [stream.id for stream in streams])
        }
    candidates = [
        candidate for stream in streams if stream.id not in existing for candidate in _candidates(stream, actor)
    ]
    if not candidates:
        return 0
    verdict = await appender.append(Request(candidates))
    if isinstance(verdict[0], Refused):
        raise verdict[0]
    return len(candidates)
