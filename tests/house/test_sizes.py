"""Files stay small and have a docstring whose first line fits into the map."""

import ast
from pathlib import Path

import pytest

from scripts.prose_report import FILE_LINES_MAX
from scripts.source_texts import REPOSITORY, line_count

FOLDERS = ("ledger", "projections", "alembic", "scripts")
CODE = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_file_is_too_long(path: Path) -> None:
    assert line_count(path) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
