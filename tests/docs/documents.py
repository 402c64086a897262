"""Running the commands of a Markdown document in order, in one shell, and comparing the outputs.

A block ```` ```sh ```` is run; a block ```` ```output ```` after it is what it must print, with `…` for anything. A
block ```` ```sh server ```` is a service: it is started in the background, its output block must appear, and it runs
until the end of the document. Every other language is shown, not run. The reader's directory is a copy of the
checkout; port 8080 of the document stands for a free one, and the database of `OWN_DATABASE` for an empty one.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]

LINKED = ("ledger", "projections", "scripts", "tests", "docs", ".venv")
COPIED = (
    "alembic",
    "alembic.ini",
    "pyproject.toml",
    "requirements.txt",
    "requirements-build.txt",
    "requirements-dev.txt",
)

OWN_DATABASE = "postgresql://ledger:PASSWORD@localhost:5432/ledger"
"""The database of the documents, which stands for an empty one of the tests."""

SECONDS_MAX = 120.0
"""For one block."""

BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """Commands of a document, the line at which they begin, and what they must print."""

    line: int
    commands: str
    is_server: bool
    output: str | None


def documents() -> list[Path]:
    """Return the documents whose commands are run."""
    docs = REPOSITORY / "docs"
    return [REPOSITORY / "README.md", *sorted((docs / "guides").glob("*.md"))]


def blocks(document: Path) -> list[Block]:
    """Return the blocks of a document that are run."""
    text = document.read_text()
    found: list[Block] = []
    for match in BLOCK.finditer(text):
        language, option, content = match.groups()
        if language == "output":
            assert found, f"{document.name}: an output block without commands"
            found[-1] = found[-1]._replace(output=content)
        elif language == "sh":
            found.append(Block(text[: match.start()].count("\n") + 2, content, option == "server", None))
    return found


def expected_pattern(output: str) -> str:
    """Return a regular expression for an output block; white space at the ends of lines does not count."""
    return r"\s*".join(".*?".join(map(re.escape, line.split("…"))) for line in output.strip().splitlines())


@contextmanager
def readers_directory(folder: Path) -> Iterator[Path]:
    """Yield a copy of the checkout; what it shares with the checkout is not written to."""
    copy = folder / "ledger"
    copy.mkdir()
    for name in LINKED:
        (copy / name).symlink_to(REPOSITORY / name)
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name)
        else:
            shutil.copy(source, copy / name)
    yield copy


class Reader:
    """Someone who follows a document."""

    def __init__(self, directory: Path, home: Path, database: str) -> None:
        """Start the shell.

        Args:
            directory: the working directory.
            home: the home directory of the user.
            database: the URL for `OWN_DATABASE`.
        """
        self._database = database
        self._port = str(free_port())
        self._environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "LEDGER_PORT": self._port,
            "LEDGER_URL": f"http://127.0.0.1:{self._port}",
        }
        self._directory = directory
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._servers: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """Stop the shell and the services."""
        for process in (self._shell, *reversed(self._servers)):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def follow(self, block: Block) -> str:
        """Run a block; return what it printed, with the document's port in it."""
        commands = block.commands.replace("8080", self._port).replace(OWN_DATABASE, self._database)
        printed = self._serve(commands, block.output or "") if block.is_server else self._run(commands, block.line)
        return printed.replace(self._port, "8080")

    def _run(self, commands: str, line: int) -> str:
        marker = f"--- end of line {line} ---"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{commands}\nprintf '\\n%s %s\\n' '{marker}' $?\n")
        self._shell.stdin.flush()
        printed = ""
        deadline = time.monotonic() + SECONDS_MAX
        for text in self._shell.stdout:
            if text.startswith(marker):
                assert text.split()[-1] == "0", (
                    f"exit code {text.split()[-1]} of:\n{commands}\nwhich printed:\n{printed}"
                )
                return printed
            printed += text
            assert time.monotonic() < deadline, f"not done in {SECONDS_MAX:.0f} s:\n{commands}\n{printed}"
        raise AssertionError(f"the shell ended in:\n{commands}\nwhich printed:\n{printed}")

    def _serve(self, commands: str, output: str) -> str:
        log = self._directory / f"server-{len(self._servers)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {commands.strip()}"],
                cwd=self._directory,
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self._servers.append(process)
        pattern = re.compile(expected_pattern(output), re.DOTALL)
        deadline = time.monotonic() + SECONDS_MAX
        while not pattern.fullmatch(log.read_text().replace(self._port, "8080").strip()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"expected:\n{output}\nprinted:\n{log.read_text()}"
            time.sleep(0.1)
        return log.read_text()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
