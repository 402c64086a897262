"""No tracked file names a folder of one machine or a package registry."""

import re
from pathlib import Path

from scripts.source_texts import relative, tracked_files

MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:home|Users|root|work|workspace)/\w")
REGISTRY = re.compile(r"\b(?:pypi\.org|pythonhosted\.org|index-url|registry\.npmjs|/simple/)")


def places(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{relative(path)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert places(MACHINE_PATH) == []


def test_no_file_names_a_package_registry() -> None:
    assert places(REGISTRY) == []
