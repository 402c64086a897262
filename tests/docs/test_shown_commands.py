"""Commands that documents and messages show exist, with their options, also if nothing runs them."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from ledger.cli.main import main
from scripts.source_texts import Text, documents, messages, sources

SPAN = re.compile(r"`(?:\.venv/bin/)?(ledger [a-z][^`]*)`")
CONSOLE = re.compile(r"(?m)^\$ (?:\.venv/bin/)?(ledger .*)$")


def shown() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each command line in documents, messages and help texts."""
    texts: list[Text] = [*documents(), *messages(sources())]
    for text in texts:
        for pattern in (SPAN, CONSOLE):
            for found in pattern.finditer(text.text):
                yield f"{text.path}:{text.line}", " ".join(found[1].split())


def problem(line: str) -> str | None:
    """Return what is wrong with a command line; `a|b` stands for either command, `…` and capitals for a value."""
    words = shlex.split(line.replace("…", "X"))[1:]
    commands: list[click.Command] = [main]
    while words and all(isinstance(command, click.Group) for command in commands):
        names = words.pop(0).split("|")
        below = [command.commands.get(name) for command in commands for name in names]  # type: ignore[attr-defined]
        if None in below:
            return f"there is no command {' or '.join(names)}"
        commands = [command for command in below if command is not None]
    for option in (word.partition("=")[0] for word in words if word.startswith("-") and word != "-"):
        for command in commands:
            names = {name for parameter in command.params for name in parameter.opts} | {"-h", "--help"}
            if option.strip("[]") not in names:
                return f"{command.name} has no option {option}"
    return None


def test_every_command_that_is_shown_exists() -> None:
    wrong = {f"{place}: {line}": problem(line) for place, line in shown()}

    assert {place: text for place, text in wrong.items() if text} == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ledger verify --export FILE", None),
        ("ledger projections retry|skip", None),
        ("ledger keys make", "there is no command make"),
        ("ledger up --dem", "up has no option --dem"),
    ],
)
def test_a_stale_command_is_found(line: str, reason: str | None) -> None:
    assert problem(line) == reason


def test_the_documents_show_commands() -> None:
    assert len(list(shown())) > 50
