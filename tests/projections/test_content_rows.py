"""Content events folded into an asset's row in memory."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.events import campaign, content, follow, job
from tests.projections.helpers import NOON, MemoryLog, defaults


def test_an_asset_is_created_as_a_draft_with_its_texts_as_sent() -> None:
    log, opened = MemoryLog(), campaign()
    drafted = content(
        title="Ünï", content="", content_type="ad_copy", campaign_id=opened["id"], metadata={"b": 1, "a": 2}
    )

    log.append(opened, drafted)

    assert log.row("content_assets", drafted) == defaults("content_assets") | {
        "id": UUID(drafted["id"]),
        "created_at": NOON + timedelta(seconds=1),
        "updated_at": NOON + timedelta(seconds=1),
        "position": 2,
        "title": "Ünï",
        "content_type": "ad_copy",
        "status": "draft",
        "campaign_id": UUID(opened["id"]),
        "agent_job_id": None,
        "content": "",
        "metadata": '{"b":1,"a":2}',
    }


def test_metadata_is_an_empty_object_if_none_was_sent() -> None:
    log, drafted = MemoryLog(), content()

    log.append(drafted)

    assert log.row("content_assets", drafted)["metadata"] == "{}"


def test_an_asset_of_a_job_belongs_to_the_jobs_campaign() -> None:
    log, opened = MemoryLog(), campaign()
    queued = job(opened["id"])
    drafted = content(agent_job_id=queued["id"])

    log.append(opened, queued, drafted)

    row = log.row("content_assets", drafted)
    assert (row["agent_job_id"], row["campaign_id"]) == (UUID(queued["id"]), UUID(opened["id"]))


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (["submitted"], "review"),
        (["submitted", "rejected"], "draft"),
        (["submitted", "approved"], "approved"),
        (["submitted", "approved", "published"], "published"),
        (["archived"], "archived"),
    ],
)
def test_events_change_the_status(steps: list[str], status: str) -> None:
    log, drafted = MemoryLog(), content()

    log.append(drafted, *(follow(drafted, f"content.{step}") for step in steps))

    row = log.row("content_assets", drafted)
    assert (row["status"], row["position"], row["updated_at"]) == (
        status,
        len(steps) + 1,
        NOON + timedelta(seconds=len(steps)),
    )


@pytest.mark.parametrize(
    ("revision", "row"),
    [
        ({"title": "Another"}, {"title": "Another"}),
        ({"content": ""}, {"content": ""}),
        ({"metadata": {}}, {"metadata": "{}"}),
        ({"metadata": {"c": 3}}, {"metadata": '{"c":3}'}),
        ({"metadata": None}, {}),
        ({}, {}),
    ],
)
def test_a_revision_replaces_only_the_fields_it_names(revision: dict[str, Any], row: dict[str, Any]) -> None:
    log, drafted = MemoryLog(), content(metadata={"a": 1})
    log.append(drafted)
    before = log.row("content_assets", drafted)

    log.append(follow(drafted, "content.revised", revision))

    after = log.row("content_assets", drafted)
    assert after == before | row | {"position": 2, "updated_at": NOON + timedelta(seconds=1)}


def test_an_asset_is_assigned_to_a_campaign_and_to_none() -> None:
    log, opened, drafted = MemoryLog(), campaign(), content()
    log.append(opened, drafted)

    log.append(follow(drafted, "content.assigned", {"campaign_id": opened["id"]}))
    assigned = log.row("content_assets", drafted)["campaign_id"]
    log.append(follow(drafted, "content.assigned", {"campaign_id": None}))

    assert (assigned, log.row("content_assets", drafted)["campaign_id"]) == (UUID(opened["id"]), None)


def test_a_deleted_asset_has_no_row() -> None:
    log, drafted = MemoryLog(), content()

    log.append(drafted, follow(drafted, "content.deleted"))

    assert log.rows("content_assets") == []


def test_an_asset_outlives_its_campaign_and_its_job_and_keeps_its_position() -> None:
    log, opened, queued = MemoryLog(), campaign(), job()
    drafted = content(campaign_id=opened["id"], agent_job_id=queued["id"])
    log.append(opened, queued, drafted)
    before = log.row("content_assets", drafted)

    log.append(follow(opened, "campaign.deleted"), follow(queued, "job.cancelled"), follow(queued, "job.deleted"))

    assert log.row("content_assets", drafted) == before | {"campaign_id": None, "agent_job_id": None}
