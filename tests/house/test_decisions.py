"""Decision records: one form, numbers without gaps, all of them in the index."""

import re
from pathlib import Path

import pytest

from scripts.source_texts import REPOSITORY

FOLDER = REPOSITORY / "docs" / "decisions"
DECISIONS = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")

HEADINGS = ["Context", "Decision", "Consequences", "Alternatives"]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name)
def test_a_decision_has_its_title_status_date_and_headings(path: Path) -> None:
    text = path.read_text()

    assert text.startswith(f"# {path.name[:4]}. ")
    status = r"^- Status: (accepted|(accepted; )?replaced (in part )?by \[\d{4}\]\(\S+\)|withdrawn)$"
    assert re.search(status, text, re.MULTILINE)
    assert re.search(r"^- Date: \d{4}-\d{2}$", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS


def test_decisions_are_numbered_without_gaps() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name)
def test_a_decision_is_in_the_index_by_its_title(path: Path) -> None:
    title = path.read_text().partition("\n")[0].partition(". ")[2]

    assert f"- {path.name[:4]} [{title}]({path.name})" in (FOLDER / "README.md").read_text()
