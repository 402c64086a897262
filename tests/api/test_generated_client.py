"""A client that openapi-python-client generates from the OpenAPI document, without a warning, works."""

import asyncio
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service

PACKAGE = "budget_and_job_ledger_client"


@pytest.fixture(scope="module")
async def generated(shared: Service, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The output of the generator, which wrote the client into `client` of the working directory in `args`."""
    folder = tmp_path_factory.mktemp("generated")
    async with shared.client.get("/openapi.json") as answer:
        (folder / "openapi.json").write_bytes(await answer.read())
    # The generator formats what it writes with ruff, which it looks up in PATH.
    environment = os.environ | {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"]
    paths = ["--path", str(folder / "openapi.json"), "--output-path", str(folder / "client")]
    return await asyncio.to_thread(
        subprocess.run, [*command, *paths], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def package(generated: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The generated package, imported."""
    monkeypatch.syspath_prepend(generated.args[-1])
    yield importlib.import_module(PACKAGE)
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def test_the_generator_reads_the_document_without_a_warning(generated: subprocess.CompletedProcess[str]) -> None:
    output = generated.stdout + generated.stderr

    assert generated.returncode == 0, output
    assert "warning" not in output.lower()


async def test_every_operation_is_generated_and_every_module_can_be_imported(shared: Service, package: Any) -> None:
    async with shared.client.get("/openapi.json") as answer:
        document = await answer.json()
    ids = {operation["operationId"] for item in document["paths"].values() for operation in item.values()}

    modules = [module.name for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    for name in modules:
        importlib.import_module(name)

    assert {name.rpartition(".")[2] for name in modules if name.count(".") == 3} == ids
    assert f"{PACKAGE}.api.events.post_v1_events" in modules


async def test_the_generated_client_appends_and_reads(shared: Service, package: Any) -> None:
    post = importlib.import_module(f"{PACKAGE}.api.events.post_v1_events")
    get = importlib.import_module(f"{PACKAGE}.api.campaigns.get_v1_campaigns_id")
    models = importlib.import_module(f"{PACKAGE}.models")
    created = models.CampaignCreatedEvent.from_dict(
        {"type": "campaign.created", "data": {"name": "A", "budget": "12.5", "start_date": "2025-01-01"}}
    )
    spent = models.CostRecordedEvent.from_dict({"type": "cost.recorded", "data": {"resource_type": "media", "cost": 1}})

    async with shared.client.get("/healthz") as answer:
        url = answer.url.origin()

    async with package.Client(base_url=str(url)) as client:
        appended = await post.asyncio(client=client, body=[created, spent])
        position = appended.position
        read = await get.asyncio(appended.events[0].id, client=client, min_position=position)
        refused = await post.asyncio(client=client, body=spent, idempotency_key="")

    assert [receipt.duplicate for receipt in appended.events] == [False, False]
    assert (read.name, read.budget, read.status.value) == ("A", "12.5", "draft")
    assert isinstance(refused, models.Problem)
