"""Run the instructions of a Dockerfile in a chroot on this machine's programs; no downloads.

Each stage is a folder with this machine's /usr, a copy of its /etc, and what the instructions write. It needs root and
mount namespaces.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

LINKS = ("bin", "sbin", "lib", "lib32", "lib64")

MOUNTS = """
set -eu
mount --rbind /usr "$ROOT/usr"
mount -o remount,bind,ro "$ROOT/usr"
mount --rbind "$PYTHON" "$ROOT$PYTHON"
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
"""

READ_ONLY_MOUNTS = """
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount --rbind /usr "$ROOT/usr"
mount --rbind "$PYTHON" "$ROOT$PYTHON"
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount --bind "$VOLUME" "$ROOT$VOLUME_PATH"
"""


class Instruction(NamedTuple):
    """One instruction, such as `RUN`, and its text."""

    name: str
    text: str


def instructions(dockerfile: Path) -> list[Instruction]:
    """Return the instructions of a Dockerfile, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text()).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def can_build() -> bool:
    """Whether this user may mount and change the root folder."""
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


class Stage:
    """One stage of the build: its root folder, environment, working directory and user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # The Python of this environment stands for the one of the base image.
        self.environment: dict[str, str] = {
            "PATH": f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        }
        self.directory = "/"
        self.user = "0"
        self.settings: dict[str, str] = {}
        for name in ("usr", "dev", "proc", "tmp", "root/.cache", "var/lib", "opt", sys.base_prefix.lstrip("/")):
            (root / name).mkdir(parents=True)
        for name in LINKS:
            if Path("/", name).is_symlink():
                (root / name).symlink_to(os.readlink(f"/{name}"))
        subprocess.run(["cp", "-a", "/etc", str(root / "etc")], check=True)

    def apply(self, instruction: Instruction, context: Path, stages: dict[str, "Stage"]) -> None:
        """Do what one instruction says.

        Args:
            instruction: any but FROM.
            context: the folder that COPY copies from.
            stages: the earlier stages by name.
        """
        match instruction.name:
            case "RUN":
                self.run(["sh", "-c", instruction.text])
            case "COPY":
                self._copy(instruction.text, context, stages)
            case "WORKDIR":
                self.directory = instruction.text
                (self.root / instruction.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENV":
                for assignment in shlex.split(instruction.text):
                    name, _, value = assignment.partition("=")
                    self.environment[name] = value.replace("$PATH", self.environment["PATH"])
            case "USER":
                self.user = instruction.text
            case name:
                self.settings[name] = instruction.text

    def run(self, command: list[str], **environment: str) -> str:
        """Run a command in the root folder as root; return its output."""
        return self._within(MOUNTS, command, "0", environment)

    def run_read_only(self, command: list[str], volume: Path, **environment: str) -> str:
        """Run a command as the image's user in the image's directory, on a read-only root folder.

        Args:
            command: with its arguments.
            volume: the folder behind VOLUME, which is writable.
            environment: further variables.

        Returns:
            its output.
        """
        shutil.chown(volume, int(self.user), int(self.user))
        paths = {"VOLUME": str(volume), "VOLUME_PATH": self.settings["VOLUME"]}
        return self._within("set -eu" + READ_ONLY_MOUNTS, command, self.user, environment, paths)

    def command(self, name: str) -> list[str]:
        """Return ENTRYPOINT, CMD or HEALTHCHECK as a list of words."""
        words: list[str] = json.loads(self.settings[name][self.settings[name].index("[") :])
        return words

    def _within(
        self,
        mounts: str,
        command: list[str],
        user: str,
        environment: dict[str, str],
        paths: dict[str, str] | None = None,
    ) -> str:
        inner = f'cd "$DIRECTORY" && exec {shlex.join(command)}'
        script = f'{mounts}\nexec chroot --userspec="$USER_ID:$USER_ID" "$ROOT" sh -c {shlex.quote(inner)}'
        passed = {
            "ROOT": str(self.root),
            "PYTHON": sys.base_prefix,
            "USER_ID": user,
            "DIRECTORY": self.directory,
            **(paths or {}),
        }
        proxies = {
            name: value for name, value in os.environ.items() if re.match("(?i)pip_|.*_proxy|ssl_|requests_", name)
        }
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script],
            env={**proxies, **self.environment, **passed, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def _copy(self, text: str, context: Path, stages: dict[str, "Stage"]) -> None:
        *options, source, target = text.split()
        origin = context
        for option in options:
            if option.startswith("--from="):
                origin = stages[option.removeprefix("--from=")].root
        destination = self.root / str(Path(self.directory, target)).lstrip("/")
        copied = origin / source.lstrip("/")
        if target.endswith("/"):
            destination = destination / copied.name
        destination.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--no-target-directory", str(copied), str(destination)], check=True)


def build(dockerfile: Path, context: Path, folder: Path) -> Stage:
    """Run all stages; return the last one.

    Args:
        dockerfile: to run.
        context: the folder that COPY copies from.
        folder: an empty folder for the root folders.

    Returns:
        the last stage.
    """
    stages: dict[str, Stage] = {}
    for number, instruction in enumerate(instructions(dockerfile)):
        if instruction.name == "FROM":
            _, _, name = instruction.text.partition(" AS ")
            stage = stages[name or "last"] = Stage(folder / f"stage-{number}")
        else:
            stage.apply(instruction, context, stages)
    return stage
