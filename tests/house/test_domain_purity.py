"""The domain computes and does no I/O: allowed imports, forbidden calls, no floating-point numbers."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.source_texts import REPOSITORY

DOMAIN = sorted((REPOSITORY / "ledger" / "domain").glob("*.py"))

# Libraries that compute. None of them reads a clock, a file, a socket, the environment or random numbers.
PURE = {
    "bisect",
    "collections",
    "collections.abc",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "functools",
    "json",
    "msgspec",
    "operator",
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
def test_the_domain_imports_only_libraries_that_compute(path: Path) -> None:
    names = {name for node in nodes(path) for name in imported(node)}

    assert {name for name in names if name not in PURE and not name.startswith("ledger.domain")} == set()


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.name)
def test_the_domain_reads_no_clock_no_random_numbers_and_no_files(path: Path) -> None:
    called = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
    names = [(node.lineno, getattr(node, "attr", getattr(node, "id", ""))) for node in called]

    assert [(line, name) for line, name in names if name in IMPURE_CALLS] == []


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: path.name)
def test_the_domain_uses_no_floats(path: Path) -> None:
    """The JSON decoder is configured to read numbers as decimals, so that no float appears there either."""
    found = [
        node.lineno
        for node in nodes(path)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float | complex))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    ]

    assert found == []
