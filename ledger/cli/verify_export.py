"""ledger verify --export: verify an exported log against a signed checkpoint, without a database."""

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
from ledger.cli.output import counted, echo, exit_on_error, print_json, progress_bar

F = TypeVar("F", bound=Callable[..., Any])

KEY_CHARACTERS_MAX = 10_000


def export_options(command: F) -> F:
    """Add --export, --checkpoint and --key, which are given together or not at all, and --partial."""
    for option in (
        click.option(
            "--partial",
            is_flag=True,
            help="Accept that the export ends before the log: count texts that are missing without a record of their "
            "erasure, which may follow later.",
        ),
        click.option(
            "--key",
            metavar="KEY",
            help="Use this verifier key of the log, or the file that holds it (GET /v1/log/key).",
        ),
        click.option(
            "--checkpoint",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Verify against the signed checkpoint in FILE (GET /v1/log/checkpoint).",
        ),
        click.option(
            "--export",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
            metavar="FILE",
            help="Verify the export in FILE (`ledger events export`) instead of the database; - is standard input.",
        ),
    ):
        command = option(command)
    return command


def verify(
    export: Path | None, checkpoint: Path | None, key: str | None, *, is_partial: bool, as_json: bool
) -> NoReturn:
    """Verify an export, print what it proves, and exit.

    Args:
        export: the file with the export; - for stdin.
        checkpoint: the file with the signed checkpoint.
        key: the verifier key, or the name of the file that holds it.
        is_partial: accept texts that are missing without a record of their erasure.
        as_json: print JSON.

    Raises:
        UsageError: one of the first three is missing, or the key cannot be read.
        SystemExit: code 0 if the export is proved, else 1.
    """
    if export is None or checkpoint is None or key is None:
        raise click.UsageError("--export, --checkpoint and --key go together: give all three, or none")
    verifier = _read_verifier(key)
    with exit_on_error():
        try:
            signed = open_checkpoint(checkpoint.read_bytes(), verifier)
            with open_export(export) as file, progress_bar("Verifying", "bytes") as bar:
                if file.size is not None:
                    bar.begin(file.size)
                proved = verify_export(
                    read_lines(file.lines), signed, lambda: bar.progress(file.bytes_read), is_partial=is_partial
                )
        except (ExportError, ExportMismatchError) as error:
            _print_fault(error, as_json)
            sys.exit(1)
    _print_proved(proved, as_json)
    sys.exit(0)


def _read_verifier(key: str) -> Verifier:
    try:
        file = Path(key)
        text = key if "+" in key and not file.exists() else file.read_text()[:KEY_CHARACTERS_MAX]
        return Verifier.parse(text.strip())
    except (OSError, UnicodeDecodeError):
        # The message does not repeat the argument: it may be a private key.
        raise click.UsageError("--key is neither a verifier key nor a file that can be read") from None
    except NoteError as error:
        raise click.UsageError(f"--key: {error}") from None


def _print_fault(error: ExportError | ExportMismatchError, as_json: bool) -> None:
    if as_json:
        line, position = (error.line, error.position) if isinstance(error, ExportError) else (None, None)
        print_json({"proved": False, "line": line, "position": position, "detail": error.detail})
    else:
        echo(f"Not proved: {error}")


def _print_proved(proved: VerifiedExport, as_json: bool) -> None:
    if as_json:
        print_json({"proved": True, **msgspec.structs.asdict(proved)})
        return
    echo(f"Proved: {counted(proved.sealed, 'event')} of {proved.origin}, root {proved.root}.")
    if proved.not_sealed:
        echo(f"Not sealed: {counted(proved.not_sealed, 'later event')}, valid by the rules but not signed.")
    if proved.erased:
        echo(f"Erased: the free text of {counted(proved.erased, 'event')}, which cannot be verified.")
    if proved.missing_texts:
        texts = counted(proved.missing_texts, "event")
        echo(f"Missing: the free text of {texts}; the export has no record of the erasure, which may follow later.")
    for currency, balance in proved.currencies.items():
        echo(f"{currency}: {balance.spent} spent, {balance.held} held")
