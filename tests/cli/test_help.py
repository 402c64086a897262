"""Help of the commands: -h, examples that can be run, completion in the shell."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ledger.cli.examples import EXAMPLES
from ledger.cli.main import main
from tests.cli.helpers import PYTHON, REPOSITORY, environment


def commands(command: click.Command = main, path: str = "ledger") -> Iterator[str]:
    """Yield what a user types for each command."""
    yield path
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")


def parse(words: list[str]) -> str:
    """Parse a command line without running it; return the command."""
    path, command = "ledger", main
    while isinstance(command, click.Group):
        name = words.pop(0)
        path, command = f"{path} {name}", command.commands[name]
    command.make_context(path, words)
    return path


@pytest.mark.parametrize("path", list(commands()))
def test_h_is_help_and_shows_the_examples(path: str) -> None:
    words = path.split()[1:]

    short, long = (CliRunner().invoke(main, [*words, option]) for option in ("-h", "--help"))

    assert (short.exit_code, short.output) == (0, long.output)
    assert "-h, --help" in short.output
    assert EXAMPLES[path]
    for example in EXAMPLES[path]:
        assert f"    {example}\n" in short.output


@pytest.mark.parametrize("path", list(EXAMPLES))
def test_the_examples_are_command_lines_of_the_command(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("events.json", "ledger.ndjson.gz", "checkpoint", "key", "events.ndjson", "ledger.dump"):
        (tmp_path / name).touch()

    for example in EXAMPLES[path]:
        words = shlex.split(example)
        ours = words[words.index("ledger") + 1 :]
        end = next((ours.index(mark) for mark in ("|", "<") if mark in ours), len(ours))
        parsed = parse(ours[:end])

        assert parsed == path or parsed.startswith(f"{path} ")


@pytest.mark.parametrize("script", ["seed_data.py", "db_reset.py", "replay_trace.py"])
def test_the_scripts_have_the_same_help(script: str) -> None:
    shown = subprocess.run(
        [PYTHON, REPOSITORY / "scripts" / script, "-h"], env=environment(), capture_output=True, text=True
    )

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "-h, --help" in shown.stdout
    assert "Example" in shown.stdout


def test_the_shell_completes_commands_and_options() -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        variables = {"_LEDGER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        # The name of the program decides which variable is read.
        program = [PYTHON, "-c", "from ledger.cli.main import main; main(prog_name='ledger')"]
        shown = subprocess.run(program, env=environment() | variables, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in shown.stdout.splitlines()]

    assert completed("ledger ke") == ["keys"]
    assert completed("ledger keys create --ro") == ["--role"]
    assert completed("ledger keys create --role m") == ["manager", "metrics"]
