"""ledger verify --export: a history proved without the ledger it comes from."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from ledger.audit.export_check import ExportMismatchError, VerifiedExport, open_checkpoint, verify_export
from ledger.audit.export_file import open_export
from ledger.audit.export_lines import ExportError, read_lines
from ledger.audit.note import NoteError, Verifier
from ledger.cli.common import plain_errors, print_json, replay_bar

F = TypeVar("F", bound=Callable[..., Any])

KEY_CHARACTERS_MAX = 10_000


def options(command: F) -> F:
    """The three options that go together."""
    for option in (
        click.option("--key", help="The verifier key of the log, or a file that holds it (GET /v1/log/key)."),
        click.option(
            "--checkpoint",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A file with a signed checkpoint (GET /v1/log/checkpoint).",
        ),
        click.option(
            "--export",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
            help="An export of the log (`ledger events export`); - is stdin.",
        ),
    ):
        command = option(command)
    return command


def verify(export: Path | None, checkpoint: Path | None, key: str | None, as_json: bool) -> NoReturn:
    """Prove an export, say what it proves, and end with the exit code."""
    if export is None or checkpoint is None or key is None:
        raise click.UsageError("--export, --checkpoint and --key go together: give all three, or none")
    verifier = _verifier(key)
    with plain_errors():
        try:
            signed = open_checkpoint(checkpoint.read_bytes(), verifier)
            with open_export(export) as file, replay_bar("Verifying", "bytes") as bar:
                if file.size is not None:
                    bar.begin(file.size)
                proved = verify_export(read_lines(file.lines), signed, lambda: bar.progress(file.bytes_read))
        except (ExportError, ExportMismatchError) as error:
            _print_fault(error, as_json)
            sys.exit(1)
    _print(proved, as_json)
    sys.exit(0)


def _verifier(key: str) -> Verifier:
    try:
        file = Path(key)
        text = key if "+" in key and not file.exists() else file.read_text()[:KEY_CHARACTERS_MAX]
        return Verifier.parse(text.strip())
    except (OSError, UnicodeDecodeError):
        # What was given is not repeated: it may be a private key.
        raise click.UsageError("--key is neither a verifier key nor a file that can be read") from None
    except NoteError as error:
        raise click.UsageError(f"--key: {error}") from None


def _print_fault(error: ExportError | ExportMismatchError, as_json: bool) -> None:
    if as_json:
        line, position = (error.line, error.position) if isinstance(error, ExportError) else (None, None)
        print_json({"proved": False, "line": line, "position": position, "detail": error.detail})
    else:
        click.echo(f"Not proved: {error}")


def _print(proved: VerifiedExport, as_json: bool) -> None:
    if as_json:
        print_json({"proved": True, **msgspec.structs.asdict(proved)})
        return
    click.echo(f"Proved: {proved.sealed:,} events of {proved.origin}, root {proved.root}.")
    if proved.not_sealed:
        click.echo(f"Not sealed: {proved.not_sealed:,} events after them; they keep the rules, but nobody signed them.")
    if proved.erased:
        click.echo(f"Erased: the texts of {proved.erased:,} events; what was erased cannot be checked.")
    for currency, balance in proved.currencies.items():
        click.echo(f"{currency}: {balance.spent} spent, {balance.held} held")
