"""The wheel, built from this checkout and installed into a new environment, works from any folder."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from scripts.source_texts import REPOSITORY
from tests.migrations.helpers import HEAD


def test_the_folder_of_migrations_is_no_package() -> None:
    """With an __init__.py, `import alembic` would find the folder instead of the library."""
    assert not (REPOSITORY / "alembic" / "__init__.py").exists()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel of this checkout; dependencies come from the current environment."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("NOT TESTED: the wheel; hatchling is not installed, run: .venv/bin/pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    _must(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, REPOSITORY)
    (wheel,) = folder.glob("*.whl")
    _must(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    _must(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    return python


def _must(*command: object, cwd: Path | str = "/") -> str:
    # PYTHONPATH adds packages but reads no .pth file: the editable install of this checkout stays invisible.
    libraries = {sysconfig.get_path("purelib"): None}
    if (hatchling := importlib.util.find_spec("hatchling")) and hatchling.origin:
        libraries[str(Path(hatchling.origin).parents[1])] = None
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": os.pathsep.join(libraries),
    }
    done = subprocess.run([str(part) for part in command], env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_command_works_from_anywhere(installed: Path, tmp_path: Path) -> None:
    help_text = _must(installed.with_name("ledger"), "--help", cwd=tmp_path)
    locations = _must(
        installed, "-c", "import ledger, projections; print(ledger.__file__, projections.__file__)", cwd=tmp_path
    )

    assert "Usage: ledger" in help_text
    assert all(str(installed.parent.parent) in file for file in locations.split())


def test_the_installed_package_finds_its_migrations_and_leaves_the_library_alone(
    installed: Path, tmp_path: Path
) -> None:
    program = """
from ledger.database.migrations import expected_revision, migrations_folder
import alembic.command
print(expected_revision(), migrations_folder(), alembic.command.__file__)
"""
    revision, folder, library = _must(installed, "-c", program, cwd=tmp_path).split()

    assert revision == HEAD
    assert folder.endswith("/ledger/migrations")
    assert str(installed.parent.parent) in folder
    assert str(installed.parent.parent) not in library
