"""The files of docs/deploy: linted, rated, built and run on this machine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.source_texts import REPOSITORY
from tests.cli.helpers import ledger, started
from tests.docs.documents import free_port
from tests.docs.image import Stage, build, can_build
from tests.servers.certificates import Authority
from tests.servers.postgresql import postgresql

DEPLOY = REPOSITORY / "docs" / "deploy"
EXPOSURE_MAX = 2.0

SERVE_AND_CHECK = """
ledger up --demo >up.log 2>&1 &
for second in $(seq 60); do
    if grep -q "The ledger is at" up.log && python -c "$HEALTH" 2>/dev/null; then
        cat up.log; id -u; touch /opt/x 2>&1 || true; kill %1; wait %1; exit $?
    fi
    sleep 1
done
cat up.log; exit 1
"""


def program(name: str, install: str) -> str:
    """Return the path of a program, beside this Python or on PATH; skip the test loudly if there is none."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"NOT TESTED: {name} is missing; {install}")
    return found


def run(*command: str | Path) -> str:
    """Run a command, which must succeed; return its output."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    hadolint = program("hadolint", "it comes with scripts/install dev")

    assert run(hadolint, "--no-color", "--failure-threshold", "style", DEPLOY / "Dockerfile") == ""


def test_the_exposure_of_the_unit_is_low() -> None:
    analyze = program("systemd-analyze", "apt-get install systemd")

    rated = run(analyze, "security", "--offline=true", "--no-pager", DEPLOY / "ledger.service")

    exposure = re.search(r"Overall exposure level for ledger\.service: ([\d.]+)", rated)
    assert exposure is not None
    assert float(exposure[1]) <= EXPOSURE_MAX


def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "apt-get install systemd")
    unit = tmp_path / "ledger.service"
    text = (DEPLOY / "ledger.service").read_text()
    unit.write_text(re.sub("(?m)^ExecStart=.*$", "ExecStart=/bin/true", text))

    assert run(analyze, "verify", "--recursive-errors=no", unit) == ""


def test_compose_runs_the_image_with_the_restrictions_that_it_is_built_for() -> None:
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["ledger"]
    settings = (REPOSITORY / "docs" / "reference" / "settings.md").read_text()

    assert (DEPLOY / service["build"]["context"]).resolve() == REPOSITORY
    assert (REPOSITORY / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert service["volumes"] == ["home:/var/lib/ledger"]
    assert [name for name in service["environment"] if f"`{name}`" not in settings] == []
    assert service["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_compose_gives_the_service_only_the_password_of_a_user_that_owns_nothing() -> None:
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    owner, app = (f"${{LEDGER_{name}_PASSWORD:?set it in .env}}" for name in ("DB", "APP"))

    services = {name: service["environment"] for name, service in compose["services"].items()}

    assert (services["migrate"]["DB_USER"], services["migrate"]["DB_PASSWORD"]) == ("ledger", owner)
    assert (services["ledger"]["DB_USER"], services["ledger"]["DB_PASSWORD"]) == ("app", app)
    assert owner not in services["ledger"].values()
    assert services["database"]["LEDGER_APP_PASSWORD"] == app
    assert compose["services"]["database"]["volumes"][1].endswith(
        ":/docker-entrypoint-initdb.d/create-service-user.sh:ro"
    )


async def test_the_users_of_compose_migrate_and_serve(tmp_path: Path) -> None:
    psql = program("psql", "apt-get install postgresql-15")
    with postgresql("secret") as server:
        subprocess.run(
            [DEPLOY / "create-service-user.sh"],
            check=True,
            env={
                "PATH": f"{Path(psql).parent}:{os.defpath}",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(server.port),
                "PGPASSWORD": "secret",
                "POSTGRES_USER": str(server.url.username),
                "POSTGRES_DB": "postgres",
                "LEDGER_APP_PASSWORD": "it's",
            },
        )
        app = server.url.set(username="app", password="it's")

        migrated = await ledger("migrate", database=server.url)
        async with started(tmp_path, "up", "--port", "0", "--home", tmp_path / "home", database=app) as up:
            await up.url()
            examined = await ledger("doctor", "--home", tmp_path / "home", database=app)

    assert migrated.code == 0, migrated.err
    assert "OK       user: app is a member of ledger_service" in examined.out
    assert "PROBLEM" not in examined.out


def test_the_operators_command_runs_as_the_service_does(tmp_path: Path) -> None:
    (tmp_path / "systemd-run").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "systemd-run").chmod(0o755)
    unit = (DEPLOY / "ledger.service").read_text()
    settings = {"PATH": f"{tmp_path}:{os.defpath}"}

    def arguments(**variables: str) -> list[str]:
        command = [DEPLOY / "operator-command", "keys", "create", "a b"]
        done = subprocess.run(command, env=settings | variables, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    given = arguments()
    assert given[-4:] == [re.findall("ExecStart=(.*) up", unit)[0], "keys", "create", "a b"]
    assert f"--uid={re.findall('User=(.*)', unit)[0]}" in given
    assert f"--working-directory={re.findall('WorkingDirectory=(.*)', unit)[0]}" in given
    assert f"--property=EnvironmentFile={re.findall('EnvironmentFile=(.*)', unit)[0]}" in given
    assert f"--setenv={re.findall('(LEDGER_HOME=[^ ]*)', unit)[0]}" in given
    assert set(arguments(DIRECT_DATABASE_URL="x")) - set(given) == {"--setenv=DIRECT_DATABASE_URL"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The image, built in a chroot."""
    if not can_build():
        pytest.skip("NOT TESTED: the commands of docs/deploy/Dockerfile; root and mount namespaces are needed")
    return build(DEPLOY / "Dockerfile", REPOSITORY, tmp_path_factory.mktemp("image"))


def test_the_image_serves_on_a_read_only_root_as_a_user_without_privileges(image: Stage, tmp_path: Path) -> None:
    health = image.command("HEALTHCHECK")[-1]
    (volume := tmp_path / "volume").mkdir()

    port = str(free_port())
    printed = image.run_read_only(["bash", "-c", SERVE_AND_CHECK], volume, HEALTH=health, LEDGER_PORT=port)

    assert (image.command("ENTRYPOINT"), image.command("CMD")) == (["ledger"], ["up"])
    assert "/readyz" in health
    assert f"The ledger is at http://0.0.0.0:{port}" in printed
    assert "\n10001\n" in printed
    assert "Read-only file system" in printed
    assert (volume / "admin.key").exists()


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    nginx = program("nginx", "apt-get install nginx-light")
    certificate, key = Authority(tmp_path, "ours").issue("ledger.example.org")
    text = (DEPLOY / "nginx.conf").read_text()
    text = re.sub(r"(ssl_certificate) .*;", rf"\1 {certificate};", text)
    text = re.sub(r"(ssl_certificate_key) .*;", rf"\1 {key};", text)
    (tmp_path / "nginx.conf").write_text(f"events {{}}\npid {tmp_path}/pid;\nhttp {{\n{text}}}\n")

    checked = run(nginx, "-t", "-p", tmp_path, "-e", "stderr", "-c", tmp_path / "nginx.conf")

    assert "test is successful" in checked
    assert "[warn]" not in checked
