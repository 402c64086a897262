"""The OWASP API Security Top 10 (2023), API8 and API9: headers, errors, logs, and undocumented routes."""

import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import URL

from ledger.api import append, fast_append
from ledger.api.app import ROUTES
from ledger.api.routes import Route
from ledger.database import Database
from tests.api.hostile import request, response_to
from tests.api.test_keys import address, key_header, served, status_of
from tests.api.test_owasp import INSIDE, METHODS
from tests.cli.helpers import ledger, started
from tests.conftest import Service
from tests.events import cost


async def test_api8_security_misconfiguration_every_response_has_security_headers(database: Database) -> None:
    admin = await key_header(database, "boss", "admin")
    wrong = []
    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        for route in ROUTES:
            for headers_sent in ({}, {"Authorization": "Bearer x"}, {"Origin": "https://evil.example"}):
                async with client.request(route.method, address(route.path), headers=headers_sent) as answer:
                    headers = answer.headers
                    if (
                        headers["X-Content-Type-Options"] != "nosniff"
                        or headers["Server"] != "ledger"
                        or "no-" not in headers["Cache-Control"]
                        or "X-Request-ID" not in headers
                        or any(name.lower().startswith("access-control") for name in headers)
                        or "Set-Cookie" in headers
                        or "text/html" in headers["Content-Type"]
                    ):
                        wrong.append((route.method, route.path, headers_sent, dict(headers)))

    assert wrong == []


async def test_api8_security_misconfiguration_an_error_reveals_no_internals(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await key_header(database, "boss", "admin")
    key = admin["Authorization"].removeprefix("Bearer ")

    async def broken(*arguments: Any) -> None:
        raise RuntimeError(f"SELECT secret FROM ledger.api_keys -- {database_url.password} {key}")

    texts = []
    async with served(database) as url, aiohttp.ClientSession(url, headers=admin) as client:
        for method, path, headers_sent in (
            ("GET", "/v1/campaigns?name='; DROP TABLE campaigns; --&sort=nonsense", {}),
            ("GET", "/v1/campaigns?cursor=eyJhIjoxfQ", {}),
            ("GET", "/v1/campaigns/' OR 1=1", {}),
            ("GET", "/v1/events/99999999999999999999", {}),
            ("GET", "/v1/log/tile/../../../etc/passwd", {}),
            ("POST", "/v1/events", {"data": "{"}),
            ("POST", "/v1/events", {"json": {**cost(), "type": "__class__"}}),
            ("POST", "/v1/keys", {"json": {"name": "boss", "role": "viewer"}}),
            ("DELETE", "/v1/keys/' OR ''='", {}),
            ("GET", "/nowhere", {}),
            ("PUT", "/v1/campaigns", {}),
        ):
            async with client.request(method, path, **headers_sent) as answer:
                assert 400 <= answer.status < 500, path
                texts.append(await answer.text())
        for module in (append, fast_append):
            monkeypatch.setattr(module, "split_body", broken)
        async with client.post("/v1/events", json=cost()) as answer:
            assert answer.status == 500
            texts.append(await answer.text())
        raw = request("GET", "/healthz", f"Authorization: Bearer {key}\x00")
        texts.append((await response_to(url, raw)).body.decode())

    assert [text for text in texts if INSIDE.search(text) or key in text] == []


async def test_api8_security_misconfiguration_a_real_process_logs_no_key_and_no_password(
    database_url: URL, tmp_path: Path
) -> None:
    settings = {"LEDGER_LOG_LEVEL": "DEBUG", "LEDGER_LOG_FORMAT": "json"}
    created = await ledger("keys", "create", "boss", "--role", "admin", "--json", database=database_url)
    key = json.loads(created.out)["key"]
    header = {"Authorization": f"Bearer {key}"}
    async with started(tmp_path, "serve", "--port", "0", database=database_url, **settings) as running:
        url = await running.url()
        async with aiohttp.ClientSession(url) as client:
            for headers_sent in (header, {"Authorization": f"Bearer {key[:-1]}"}, {"Authorization": f"Basic {key}"}):
                await status_of(client, "GET", "/v1/keys", headers=headers_sent)
                await status_of(client, "POST", "/v1/events", headers=headers_sent, data="{")
                await status_of(client, "GET", "/v1/campaigns", headers=headers_sent, params={"key": key})
                for path in (f"/v1/keys/{key}", f"/v1/campaigns/{key}", f"/{key}%0A"):
                    await status_of(client, "GET", path, headers=headers_sent | {"X-Request-ID": key})
            made_now = await client.post("/v1/keys", headers=header, json={"name": "new", "role": "viewer"})
            new = (await made_now.json())["key"]
        await response_to(url, request("GET", "/healthz", f"Authorization: Bearer {key}\x00"))
        await response_to(url, request("GET", "/healthz", f"Authorization: Bearer {key}" + "x" * 10_000))
        await response_to(url, request("GET", f"/{key} with spaces"))
        code = await running.stop()
    log = running.errors.read_text()

    assert code == 0
    assert '"path": "/v1/keys"' in log
    secrets = [text.split("_")[2] for text in (key, new)] + [str(database_url.password)]
    assert [secret for secret in secrets if secret in log + running.output] == []
    assert "Traceback" not in log


async def test_api8_security_misconfiguration_a_database_error_reveals_no_details(
    database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    database = Database(database_url.set(password="a-wrong-password-7", username="nobody_7"))
    async with served(database) as url, aiohttp.ClientSession(url) as client:
        texts = []
        for path in ("/readyz", "/v1/campaigns"):
            async with client.get(path, headers={"Authorization": "Bearer lgr_" + "0" * 12 + "_" + "0" * 38}) as answer:
                texts.append(await answer.text())
    await database.close()

    assert [text for text in texts if "_7" in text or "-7" in text] == []
    assert "a-wrong-password-7" not in caplog.text


async def test_api9_improper_inventory_management_only_documented_routes_respond(shared: Service) -> None:
    async with shared.client.get("/openapi.json") as answer:
        document = await answer.json()
    url = str(shared.client._base_url)
    named = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    answered = named | {("HEAD", path) for method, path in named if method == "GET"}
    wrong = []
    for path in document["paths"]:
        for method in METHODS:
            if method == "CONNECT" or (method, path) in answered or path == "/v1/events/stream":
                continue
            response = await response_to(url, request(method, address(path), "Connection: close"))
            if response.status != 405 or sorted(response.headers["allow"].split(",")) != sorted(
                found for found, of in answered if of == path
            ):
                wrong.append((method, path, response.status, response.headers.get("allow")))
    for path in (
        *("/", "/v1", "/v1/", "/v2/events", "/v0/events", "/api", "/docs", "/swagger.json", "/openapi.yaml", "/admin"),
        *(
            "/debug",
            "/.env",
            "/.git/config",
            "/static/x",
            "/healthz/",
            "/v1/events/",
            "/v1/campaigns/x/y",
            "/favicon.ico",
        ),
    ):
        response = await response_to(url, request("GET", path, "Connection: close"))
        if response.status not in (400, 404) or "json" not in response.headers["content-type"]:
            wrong.append(("GET", path, response.status, ""))

    assert wrong == []
    assert named == {(route.method, route.path) for route in ROUTES}
    assert all(isinstance(route, Route) and route.summary for route in ROUTES)
