"""Labels and usage folded into rows: those of the campaign, of the job, and its own."""

import json

from tests.events import campaign, cost, follow, job, reserve
from tests.projections.helpers import MemoryLog


def test_a_row_has_the_labels_of_its_campaign_and_job_and_its_own_which_win() -> None:
    log, opened = MemoryLog(), campaign(labels={"team": "growth", "level": "campaign"})
    queued = job(opened["id"], labels={"step": "draft", "level": "job"})
    of_job = cost(agent_job_id=queued["id"], labels={"level": "entry"})
    of_campaign, of_nothing = cost(campaign_id=opened["id"]), cost(labels={"a": "b"})

    log.append(opened, queued, of_job, of_campaign, of_nothing)

    assert json.loads(log.row("campaigns", opened)["labels"]) == {"team": "growth", "level": "campaign"}
    assert json.loads(log.row("agent_jobs", queued)["labels"]) == {"team": "growth", "step": "draft", "level": "job"}
    assert [json.loads(log.row("budget_entries", entry)["labels"]) for entry in (of_job, of_campaign, of_nothing)] == [
        {"team": "growth", "step": "draft", "level": "entry"},
        {"team": "growth", "level": "campaign"},
        {"a": "b"},
    ]


def test_more_than_sixteen_merged_labels_are_kept() -> None:
    log = MemoryLog()
    opened = campaign(labels={f"campaign_{number}": "x" for number in range(16)})
    queued = job(opened["id"], labels={f"job_{number}": "x" for number in range(16)})
    spent = cost(agent_job_id=queued["id"], labels={f"entry_{number}": "x" for number in range(16)})

    log.append(opened, queued, spent)

    assert len(json.loads(log.row("budget_entries", spent)["labels"])) == 48


def test_a_settlement_adds_labels_and_replaces_usage_tier_and_response() -> None:
    log = MemoryLog()
    held = reserve(
        labels={"team": "growth", "step": "1"}, usage={"input_tokens": 9}, service_tier="batch", response_id="a"
    )
    settlement = {"cost": "1", "labels": {"step": "2"}, "usage": {"input_tokens": 8, "output_tokens": 3}}
    log.append(held)
    before = log.row("budget_entries", held)

    log.append(follow(held, "cost.settled", settlement | {"response_id": "b"}))

    row = log.row("budget_entries", held)
    assert (before["tokens_used"], row["tokens_used"]) == (0, 11)
    assert json.loads(row["labels"]) == {"team": "growth", "step": "2"}
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"]) == (8, 3, None)
    assert json.loads(row["usage"]) == {"input_tokens": 8, "output_tokens": 3}
    assert (row["service_tier"], row["response_id"]) == ("batch", "b")
