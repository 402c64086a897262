"""The reference in docs/reference is what the code says."""

import re

from scripts.source_texts import REPOSITORY, relative
from scripts.update_reference import pages


def test_the_generated_pages_are_up_to_date() -> None:
    outdated = [relative(path) for path, text in pages().items() if path.read_text() != text]

    assert outdated == [], "run scripts/update_reference.py"


def test_every_setting_is_documented_and_no_other() -> None:
    code = (REPOSITORY / "ledger" / "config.py").read_text()
    page = (REPOSITORY / "docs" / "reference" / "settings.md").read_text()
    table = page[: page.index("Options of a database URL")]

    names = r"\b(?:LEDGER|DB|DATABASE|DIRECT_DATABASE|REPLICA_DATABASE)_[A-Z_]+\b"
    assert set(re.findall(names, table)) == set(re.findall(names, code))
