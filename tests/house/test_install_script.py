"""scripts/install: pinned and hashed packages, a half-made .venv, Debian without python3-venv."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = ("pyproject.toml", "requirements.txt", "requirements-dev.txt", "requirements-build.txt", "scripts/install")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script reads, with nothing to install."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("requirements.txt", "requirements-build.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


def install(checkout: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "PIP_NO_INDEX": "1", **settings}
    return subprocess.run([checkout / "scripts" / "install"], capture_output=True, text=True, env=environment)


def test_everything_that_is_fetched_is_pinned_and_hashed() -> None:
    script = (REPOSITORY / "scripts" / "install").read_text()
    installs = re.findall(r"^.*\binstall --.*$", script, re.MULTILINE)
    pinned = {path.name: path.read_text() for path in REPOSITORY.glob("requirements*.txt")}
    backend = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]

    fetching = [line for line in installs if "pip install" not in line and "--no-build-isolation --no-deps" not in line]
    assert len(fetching) == 2
    assert all("--require-hashes" in line for line in fetching)
    for name, text in pinned.items():
        packages = re.findall(r"^(\S.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        assert all("==" in package and "--hash=sha256:" in package for package in packages), name
    for requirement in backend:
        assert re.search(rf"^{re.split('[<>=~]', requirement)[0]}==", pinned["requirements-build.txt"], re.MULTILINE)


def test_a_half_made_environment_is_completed(checkout: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)

    result = install(checkout)

    # Without an index the package itself cannot be built.
    assert "No module named pip" not in result.stderr
    subprocess.run([checkout / ".venv" / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)


def test_a_second_install_waits_for_the_first(checkout: Path) -> None:
    lock = os.open(checkout, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    with subprocess.Popen(
        [checkout / "scripts" / "install"], stderr=subprocess.PIPE, text=True, env=environment
    ) as second:
        assert second.stderr is not None
        announced = second.stderr.readline()
        # As the first does at its end.
        checksum = subprocess.check_output(
            "cat pyproject.toml requirements-build.txt requirements.txt | cksum", shell=True, cwd=checkout, text=True
        )
        (checkout / ".venv" / "made-from.run").write_text(checksum)
        os.close(lock)
        rest = second.stderr.read()

    assert announced == "Another process is installing into .venv; waiting for it ...\n"
    assert (rest, second.returncode) == ("", 0)


def test_a_second_install_does_not_wait_forever(checkout: Path) -> None:
    lock = os.open(checkout, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    result = install(checkout, INSTALL_WAIT_SECONDS="0")
    os.close(lock)

    assert result.returncode == 1
    assert (
        result.stderr == "Another process is still installing into .venv. Wait until it has ended, and start again.\n"
    )


def test_a_folder_that_cannot_be_written_gets_one_sentence(checkout: Path) -> None:
    (checkout / ".venv").write_text("As for every user, root included: no folder can be made here.")

    result = install(checkout)

    assert result.returncode == 1
    assert result.stderr.endswith("Copy the project into a folder of your own, and start it there.\n")
    assert "Traceback" not in result.stderr


def test_a_python_without_ensurepip_gets_the_name_of_its_package(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "ensurepip.py").write_text("raise ImportError('as on Debian without python3-venv')")

    result = install(checkout, PYTHONPATH=str(tmp_path / "stub"))

    assert result.returncode == 1
    assert "apt-get install python3" in result.stderr
    assert "python3-venv" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (checkout / ".venv").exists()
