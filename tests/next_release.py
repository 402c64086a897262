"""A copy of this checkout with edits, as the next release: to run its commands, scripts and tests."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ledger.database.migrations import expected_revision
from scripts.source_texts import relative, tracked_files
from tests.cli.helpers import PYTHON, environment

REVISION = f"{int(expected_revision()) + 1:04}"
"""The revision of a migration that is added to the copy."""


class Edit(NamedTuple):
    """Text that is inserted below a line of a file, or a new file if there is no line."""

    file: str
    below: str | None
    text: str


def add_column(slug: str, table: str, column: str) -> Edit:
    """Return the migration that adds a column, such as `note varchar(1000)`."""
    name = column.partition(" ")[0]
    return Edit(
        f"alembic/versions/{REVISION}_{slug}.py",
        None,
        f'''"""A new column: `{table}.{name}`."""

from alembic import op

revision = "{REVISION}"
down_revision = "{expected_revision()}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE {table} ADD COLUMN {column}")


def downgrade() -> None:
    op.execute("ALTER TABLE {table} DROP COLUMN {name}")
''',
    )


class NextRelease:
    """A copy of this checkout in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in tracked_files():
            copied = folder / relative(path)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
        # Scripts and tests find the files of a checkout through git.
        self._git("init", "--quiet")
        self._git("add", "--all")

    def edit(self, edits: Iterable[Edit]) -> None:
        """Make edits."""
        for file, below, text in edits:
            path = self.folder / file
            if below is None:
                path.write_text(text)
                continue
            before = path.read_text()
            assert before.count(below) == 1, f"{file} has changed: adapt {Path(__file__).name} or the test's edits"
            path.write_text(before.replace(below, below + text))

    @contextmanager
    def without_edits(self, file: str) -> Iterator[None]:
        """Undo the edits of one file while inside."""
        path = self.folder / file
        edited = path.read_text()
        if self._git("ls-files", "--", file):
            self._git("checkout", "--quiet", "--", file)
        else:
            path.unlink()
        try:
            yield
        finally:
            path.write_text(edited)

    def edited_files(self) -> set[str]:
        """Return the files that differ from the checkout, and new ones."""
        changed = self._git("diff", "--name-only")
        added = self._git("ls-files", "--others", "--exclude-standard")
        return {*changed.splitlines(), *added.splitlines()}

    def run_script(self, name: str) -> None:
        """Run a script of the copy, which must succeed."""
        ended = self._run(PYTHON, f"scripts/{name}")
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def run_tests(self, *tests: str, **settings: str) -> tuple[int, str]:
        """Run tests of the copy.

        Returns:
            pytest's exit code, and its output.
        """
        # Plugins take longer to import than most tests to run.
        quick = {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "pytest_asyncio.plugin",
            "HYPOTHESIS_PROFILE": "quick",
        }
        options = ("-q", "--tb=short", "--continue-on-collection-errors", "-p", "no:cacheprovider")
        ended = self._run(PYTHON, "-m", "pytest", *options, *tests, **quick, **settings)
        return ended.returncode, ended.stdout + ended.stderr

    def _run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        env = environment(PYTHONPATH=str(self.folder), PYTHONDONTWRITEBYTECODE="", **settings)
        return subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True)

    def _git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout
