"""Documents stay short and current: their length, the files and links they name, test settings."""

import re
from pathlib import Path

import pytest

from scripts.source_texts import REPOSITORY, line_count, relative, tracked_files

DOCUMENTS = [path for path in tracked_files("*.md") if path.name != "CHANGELOG.md"]

LINES_MAX = {"ARCHITECTURE.md": 150, "README.md": 150}

LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)")
FILE = re.compile(r"`((?:ledger|projections|alembic|scripts|tests|docs|\.ci)/[\w./-]*\w)`")
TEST_SETTING = re.compile(r"LEDGER_TEST_[A-Z_]+")


@pytest.mark.parametrize("name", LINES_MAX)
def test_a_document_stays_short(name: str) -> None:
    assert line_count(REPOSITORY / name) <= LINES_MAX[name]


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_lead_to_files_that_exist(path: Path) -> None:
    assert [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_the_files_that_a_document_names_exist(path: Path) -> None:
    assert [name for name in FILE.findall(path.read_text()) if not (REPOSITORY / name).exists()] == []


def test_every_setting_of_the_tests_is_documented() -> None:
    documented = set(TEST_SETTING.findall((REPOSITORY / "docs" / "testing.md").read_text()))
    used = {
        name
        for path in tracked_files("tests/*.py")
        if path != Path(__file__)
        for name in TEST_SETTING.findall(path.read_text())
    }

    assert used - documented == set()
