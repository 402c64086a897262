"""The README and the guides, followed from the first command to the last, print what they show."""

import re
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.cli.helpers import plain
from tests.docs.documents import REPOSITORY, Reader, blocks, documents, expected_pattern, readers_directory


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
async def test_every_command_of_the_document_prints_what_it_says(
    document: Path, tmp_path: Path, empty_database_url: URL
) -> None:
    with readers_directory(tmp_path) as directory:
        reader = Reader(directory, tmp_path, plain(empty_database_url))
        try:
            for block in blocks(document):
                printed = reader.follow(block)

                if block.output is not None:
                    pattern = expected_pattern(block.output)
                    problem = f"{document.name}, line {block.line}: expected\n{block.output}\nbut got\n{printed}"
                    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), problem
        finally:
            reader.close()


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_document_has_commands_with_outputs(document: Path) -> None:
    assert any(block.output for block in blocks(document))


def test_an_output_is_compared_but_for_ellipses() -> None:
    pattern = expected_pattern('{"a":"…"}\nClean\n')

    assert re.fullmatch(pattern, '{"a":"x"}\nClean')
    assert not re.fullmatch(pattern, '{"a":"x"}\nNot clean', re.DOTALL)


def test_the_readme_and_the_setup_guide_show_the_same_program() -> None:
    programs = [
        re.findall(r"<<'PYTHON'\n(.*?)^PYTHON$", (REPOSITORY / name).read_text(), re.MULTILINE | re.DOTALL)
        for name in ("README.md", "docs/guides/setup.md")
    ]

    assert programs[0] == programs[1]
    assert "AsyncSession" in programs[0][0]


def test_a_reader_of_one_document_can_follow_the_next() -> None:
    # An id that another document has used already would be refused with 409.
    ids = [set(re.findall(r"\b\w{8}(?:-\w{4}){3}-\w{12}\b", document.read_text())) for document in documents()]

    assert sum(map(len, ids)) == len(set().union(*ids)) > 0
