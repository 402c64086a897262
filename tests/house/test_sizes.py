"""Files stay small and have a docstring whose first line fits into the map."""

import ast
from pathlib import Path

import pytest

from scripts.prose_report import FILE_LINES_MAX
from scripts.source_texts import REPOSITORY, line_count, relative
from scripts.update_map import first_line, source_files

FIRST_LINE_CHARACTERS_MAX = 100

FOLDERS = ("ledger", "projections", "alembic", "scripts")
CODE = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_file_is_too_long(path: Path) -> None:
    assert line_count(path) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", source_files(), ids=relative)
def test_the_first_line_of_a_file_fits_into_the_map(path: Path) -> None:
    assert len(first_line(path)) <= FIRST_LINE_CHARACTERS_MAX
