"""House rules: what the domain may not touch, how long a file may be, and that the wheel works once installed."""

import ast
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.migrations.helpers import HEAD

REPOSITORY = Path(__file__).parents[1]
LINES_MAX = 300

DOMAIN = sorted((REPOSITORY / "ledger" / "domain").glob("*.py"))
CODE = sorted(path for folder in ("ledger", "projections", "alembic") for path in (REPOSITORY / folder).rglob("*.py"))

# What computes, and nothing that reads a clock, a file, a socket, the environment or chance.
PURE = {
    "collections",
    "collections.abc",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "msgspec",
    "re",
    "typing",
    "uuid",
}
IMPURE_CALLS = {
    "now",
    "utcnow",
    "today",
    "fromtimestamp",
    "uuid1",
    "uuid4",
    "getnode",
    "urandom",
    "open",
    "print",
    "input",
    "exec",
    "eval",
    "__import__",
}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(), str(path)))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "."]
    return []


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.name)
def test_the_domain_imports_only_what_computes(path: Path) -> None:
    names = {name for node in nodes(path) for name in imported(node)}

    assert {name for name in names if name not in PURE and not name.startswith("ledger.domain")} == set()


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.name)
def test_the_domain_asks_no_clock_no_chance_and_nobody_else(path: Path) -> None:
    called = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
    names = [(node.lineno, getattr(node, "attr", getattr(node, "id", ""))) for node in called]

    assert [(line, name) for line, name in names if name in IMPURE_CALLS] == []


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.name)
def test_the_domain_knows_no_floats(path: Path) -> None:
    """But for JSON's reader, which is told to read numbers as something else."""
    found = [
        node.lineno
        for node in nodes(path)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float | complex))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    ]

    assert found == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_file_holds_two_ideas(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_folder_of_migrations_is_no_package() -> None:
    """With an __init__.py, `import alembic` would find the folder instead of the library."""
    assert not (REPOSITORY / "alembic" / "__init__.py").exists()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel, built from this checkout, and its dependencies from this one."""
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
    # Only packages come from here, no .pth file: the checkout itself stays invisible.
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
    said = _must(installed.with_name("ledger"), "--help", cwd=tmp_path)
    where = _must(
        installed, "-c", "import ledger, projections; print(ledger.__file__, projections.__file__)", cwd=tmp_path
    )

    assert "Usage: ledger" in said
    assert all(str(installed.parent.parent) in file for file in where.split())


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
