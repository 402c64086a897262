"""`docs/guides/auditors.md`: every command runs as written, on full and partial bundles."""

import asyncio
import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.audit.merkle import leaf_hash
from ledger.audit.note import Signer
from ledger.audit.tiles import tile_path
from ledger.database import Database
from tests.audit.sealing import ORIGIN, RecordingFiles, entries_of, fill, sealer_of, served
from tests.cli.helpers import REPOSITORY, environment

SIZE = 678
GUIDE = (REPOSITORY / "docs" / "guides" / "auditors.md").read_text()
COMMANDS = [re.sub(r"(?m)^  ", "", block) for block in re.findall(r"(?ms)^ *```sh\n(.*?)^ *```$", GUIDE)]
"""The shell blocks; the last one is indented, as part of a list."""
CREATE_KEY = "$(.venv/bin/ledger keys create auditor --role auditor)"
TOOLS = ("bash", "curl", "openssl", "sha256sum", "od", "sed")


SHELL_FUNCTION = re.search(r"(?ms)^tile_name\(\) .*?^}\n", "".join(COMMANDS))


def commands_for(position: int, address: str, blocks: list[str]) -> str:
    """Return these commands as one script, for another position and address."""
    script = "\n".join(blocks)
    for old, new in (("POSITION=3\n", f"POSITION={position}\n"), ("http://127.0.0.1:8080", address)):
        assert script.count(old) == 1
        script = script.replace(old, new)
    return f"set -euo pipefail\n{script}"


async def execute(script: str, folder: Path, env: dict[str, str]) -> list[str]:
    """Run a script with bash in a folder and return its output by line."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=folder, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which the commands find the interpreter and the command `ledger` of this checkout."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"NOT TESTED: the commands of docs/guides/auditors.md; install {', '.join(missing)}")
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture
async def signing_files(database: Database, checkout: Path) -> RecordingFiles:
    """The signing files of a sealed log with two full bundles and a partial one."""
    files = RecordingFiles(checkout / ".ledger")
    await fill(database, SIZE)
    await (await sealer_of(database, files)).seal()
    return files


def require_proof(output: list[str], position: int, entry: bytes, files: RecordingFiles) -> None:
    """Require that the output proves this entry, by hand and in Python."""
    signer = Signer.parse(files.key_file.read_text().strip())
    assert "Signature Verified Successfully" in output
    assert signer.verifier.key_id.hex() in output
    assert output.count(entry.decode()) == 2
    leaf_hashes = [line for line in output if re.fullmatch("[0-9a-f]{64}", line)]
    assert leaf_hashes == [leaf_hash(entry).hex()] * 2
    assert "the entry is in the log" in output
    assert f"is event {position} of the {SIZE} events that {signer.verifier.label} has signed" in output


@pytest.mark.parametrize("position", [256, 257, 512, 600, SIZE])
async def test_an_event_is_proved_in_any_bundle(
    database: Database, signing_files: RecordingFiles, checkout: Path, position: int
) -> None:
    blocks = [block.replace(CREATE_KEY, "lgr_unused") for block in COMMANDS]
    blocks = [block for block in blocks if ".venv/bin/ledger" not in block and "log.key" not in block]

    async with served(database) as client:
        script = commands_for(position, str(client._base_url).rstrip("/"), blocks)
        output = await execute(script, checkout, environment())

    require_proof(output, position, (await entries_of(database))[position - 1], signing_files)


async def test_every_command_runs_as_written(
    database: Database, database_url: URL, signing_files: RecordingFiles, checkout: Path
) -> None:
    # The last command creates a key in the folder of the first one.
    signing_files.key_file = signing_files.key_file.rename(checkout / "operators.key")
    settings = {"LEDGER_LOG_KEY": str(signing_files.key_file), "LEDGER_LOG_ORIGIN": ORIGIN}

    async with served(database) as client:
        script = commands_for(3, str(client._base_url).rstrip("/"), COMMANDS)
        output = await execute(script, checkout, environment(database_url, **settings))

    require_proof(output, 3, (await entries_of(database))[2], signing_files)
    text = "\n".join(output)
    assert text.count(f"all {SIZE} entries give the root that was signed") == 2
    assert text.count(f"the log still starts with the {SIZE} events of this checkpoint") == 2
    assert f"Proved: {SIZE} events of {ORIGIN}" in text
    new_key = checkout / ".ledger" / "log.key"
    assert stat.S_IMODE(new_key.stat().st_mode) == 0o600
    assert new_key.read_text() != signing_files.key_file.read_text()
    assert Signer.parse(new_key.read_text().strip()).verifier.name == "ledger.local/log"


@pytest.mark.parametrize("index", [0, 7, 10, 99, 100, 999, 1_000, 67_000, 1_000_000, 1_234_067])
async def test_the_shell_function_names_tiles_of_any_index(checkout: Path, index: int) -> None:
    assert SHELL_FUNCTION is not None
    sizes = {1: 256 * index + 1, 255: 256 * index + 255, 256: 256 * index + 300}

    script = SHELL_FUNCTION[0] + "\n".join(f"SIZE={size}; tile_name {index}" for size in sizes.values())
    names = await execute(script, checkout, environment())

    assert [f"tile/0/{name}" for name in names] == [tile_path(0, index, width) for width in sizes]
