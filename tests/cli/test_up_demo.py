"""`ledger up --demo` on a new home: its output, and the exact sample data."""

import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from ledger.embedded import installed_binaries
from tests.cli.conftest import Demo
from tests.cli.helpers import PYTHON, environment, get, key_of, ledger, run

ACCEPTANCE = """
import asyncio, os
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from projections.models import Campaign

async def main():
    engine = create_async_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"))
    async with AsyncSession(engine) as session:
        for c in (await session.execute(select(Campaign))).scalars():
            print(f"- {c.name} ({c.status})")
    await engine.dispose()

asyncio.run(main())
"""


def days_from_now(time: str) -> float:
    """Return the distance from now in days, rounded to hundredths (a quarter of an hour)."""
    return round((datetime.fromisoformat(time) - datetime.now(UTC)) / timedelta(days=1), 2)


async def by_name(demo: Demo, collection: str, name: str) -> dict[str, dict[str, Any]]:
    items = (await get(f"{demo.url}/v1/{collection}", demo.home, min_position=1))["items"]
    return {item[name]: item for item in items}


async def test_the_printed_url_serves(demo: Demo) -> None:
    assert await get(f"{demo.url}/healthz") == {"status": "ok"}
    assert demo.url.startswith("http://127.0.0.1:")


async def test_the_printed_database_url_works_unchanged_in_psql_and_asyncpg(demo: Demo) -> None:
    query = "SELECT count(*) FROM campaigns"
    psql = shutil.which("psql") or str(installed_binaries() / "psql")

    by_psql = subprocess.run([psql, "-XAt", "-c", query, demo.database_url], capture_output=True, text=True)
    connection = await asyncpg.connect(demo.database_url)
    by_asyncpg = await connection.fetchval(query)
    await connection.close()

    assert (by_psql.stdout, by_asyncpg) == ("3\n", 3)


async def test_no_password_is_printed(demo: Demo) -> None:
    folder = demo.home / "postgres"
    password = (folder / "password").read_text()

    assert password not in demo.running.output + demo.running.errors.read_text()
    assert (folder / "url").read_text() == f"{demo.database_url}\n"
    for file in ("password", "passfile", "url"):
        assert stat.S_IMODE((folder / file).stat().st_mode) == 0o600


async def test_the_printed_database_url_is_accepted_as_a_setting(demo: Demo) -> None:
    shown = await ledger("status", database=demo.database_url)

    assert (shown.code, shown.err) == (0, "")
    assert "Log: 29 events" in shown.out


@pytest.mark.parametrize(
    ("name", "figures", "start", "end"),
    [
        (
            "Q4 Product Launch",
            {
                "status": "active",
                "budget": "10000",
                "spend": "2500",
                "held": "0",
                "currency": "USD",
                "impressions": 125_000,
                "clicks": 3_200,
                "conversions": 145,
                "roi": "2.3",
                "budget_remaining": "7500",
                "budget_used_percentage": "25",
            },
            -30,
            60,
        ),
        (
            "Holiday Email Series",
            {
                "status": "active",
                "budget": "5000",
                "spend": "1200",
                "impressions": 45_000,
                "clicks": 1_800,
                "conversions": 67,
                "roi": "1.8",
                "budget_remaining": "3800",
                "budget_used_percentage": "24",
            },
            -15,
            45,
        ),
        (
            "Content Marketing 2025",
            {
                "status": "draft",
                "budget": "25000",
                "spend": "0",
                "impressions": 0,
                "clicks": 0,
                "conversions": 0,
                "roi": "0",
                "budget_remaining": "25000",
                "budget_used_percentage": "0",
            },
            30,
            None,
        ),
    ],
)
async def test_a_sample_campaign_has_its_figures(
    demo: Demo, name: str, figures: dict[str, Any], start: int, end: int | None
) -> None:
    shown = (await by_name(demo, "campaigns", "name"))[name]

    assert {column: shown[column] for column in figures} == figures
    assert days_from_now(shown["start_date"]) == start
    assert (shown["end_date"] and days_from_now(shown["end_date"])) == end


async def test_the_sample_assets_are_as_documented(demo: Demo) -> None:
    shown = await by_name(demo, "content-assets", "title")
    campaigns = {row["id"]: name for name, row in (await by_name(demo, "campaigns", "name")).items()}
    jobs = {row["id"]: kind for kind, row in (await by_name(demo, "agent-jobs", "agent_type")).items()}

    listed = {
        title: (row["content_type"], row["status"], campaigns[row["campaign_id"]]) for title, row in shown.items()
    }
    blog, email, teaser = (
        "10 Ways AI is Transforming Marketing in 2025",
        "Holiday Sale Announcement",
        "Product Launch Teaser",
    )
    assert listed == {
        blog: ("blog", "published", "Q4 Product Launch"),
        email: ("email", "approved", "Holiday Email Series"),
        teaser: ("social", "draft", "Q4 Product Launch"),
    }
    assert set(shown[blog]["metadata"]) == {"meta_description", "keywords", "word_count"}
    assert shown[blog]["metadata"]["word_count"] == 1200
    assert set(shown[email]["metadata"]) == {"subject", "preview_text"}
    assert shown[teaser]["metadata"] == {"platform": "twitter", "character_count": 240}
    assert jobs[shown[email]["agent_job_id"]] == "email_marketer"
    assert (shown[blog]["agent_job_id"] is not None, shown[teaser]["agent_job_id"]) == (True, None)


async def test_the_sample_jobs_are_as_documented(demo: Demo) -> None:
    rows = (await get(f"{demo.url}/v1/agent-jobs", demo.home, sort="cost"))["items"]
    campaigns = {row["id"]: name for name, row in (await by_name(demo, "campaigns", "name")).items()}

    listed = [
        (
            row["agent_type"],
            row["status"],
            row["tokens_used"],
            row["cost"],
            row["duration_seconds"],
            campaigns.get(row["campaign_id"]),
        )
        for row in rows
    ]
    assert listed == [
        ("seo_writer", "running", 500, "0.005", None, None),
        ("email_marketer", "completed", 1200, "0.012", 300, "Holiday Email Series"),
        ("seo_writer", "completed", 2500, "0.025", 300, "Q4 Product Launch"),
    ]
    minutes = [days_from_now(row["started_at"]) * 24 * 60 for row in rows]
    assert minutes == pytest.approx([-5, -60, -120], abs=15)


async def test_the_rest_of_the_campaigns_spend_is_media(demo: Demo) -> None:
    items = (await get(f"{demo.url}/v1/spend", demo.home, group_by="campaign_id,resource_type"))["items"]
    campaigns = {row["id"]: name for name, row in (await by_name(demo, "campaigns", "name")).items()}

    spent = {(campaigns.get(item["campaign_id"]), item["resource_type"]): item["cost"] for item in items}

    assert spent == {
        ("Q4 Product Launch", "media"): "2499.975",
        ("Q4 Product Launch", "openai_api"): "0.025",
        ("Holiday Email Series", "media"): "1199.988",
        ("Holiday Email Series", "openai_api"): "0.012",
        (None, "openai_api"): "0.005",
    }


async def test_the_acceptance_program_prints_the_campaigns(demo: Demo, tmp_path: Path) -> None:
    program = tmp_path / "acceptance.py"
    program.write_text(ACCEPTANCE)

    result = await run(PYTHON, program, env=environment(demo.database_url))

    assert (result.code, result.err) == (0, "")
    assert sorted(result.out.splitlines()) == [
        "- Content Marketing 2025 (CampaignStatus.DRAFT)",
        "- Holiday Email Series (CampaignStatus.ACTIVE)",
        "- Q4 Product Launch (CampaignStatus.ACTIVE)",
    ]


async def test_a_second_up_and_a_reset_on_a_home_in_use_are_refused_naming_the_process(demo: Demo) -> None:
    pid = demo.running.process.pid

    second = await ledger("up", "--port", "0", "--home", demo.home)
    reset = await ledger("reset", "--yes", "--home", demo.home)

    for result in (second, reset):
        assert result.code == 1
        assert f"is in use by process {pid} (ledger up)" in result.err
        assert "Traceback" not in result.err
    async with (
        aiohttp.ClientSession(headers=key_of(demo.home)) as client,
        client.get(f"{demo.url}/v1/campaigns") as answer,
    ):
        assert len((await answer.json())["items"]) == 3


async def test_other_commands_find_the_ledger_in_its_home(demo: Demo) -> None:
    checked = await ledger("doctor", "--home", demo.home)
    seeded = await ledger("seed", LEDGER_HOME=str(demo.home))

    assert checked.code == 0, checked.out
    assert seeded.code == 0
    assert seeded.out.startswith("Sample data: already there.\nThe tables are up to date")
    assert await get(f"{demo.url}/healthz") == {"status": "ok"}
