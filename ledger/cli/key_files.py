"""Warnings about key files and homes that other users of the machine can read."""

import click

from ledger.audit.home import FOLDERS
from ledger.config import Settings
from ledger.secret_files import is_exposed


def exposures(settings: Settings) -> list[str]:
    """Return a sentence for each key file, and for the home, that other users may read or write."""
    folders = [settings.home, *sorted((settings.home / FOLDERS).glob("*"))]
    files = [settings.log_key] if settings.log_key is not None else []
    files += [folder / name for folder in folders for name in ("log.key", "admin.key")]
    warnings = [f"other users can read or change {file}: run `chmod 600 {file}`" for file in files if is_exposed(file)]
    if is_exposed(settings.home):
        warnings.append(f"other users can list or change {settings.home}: run `chmod go-rw {settings.home}`")
    return warnings


def warn_of_exposures(settings: Settings) -> None:
    """Print a warning for each key file, and for the home, that other users may read or write."""
    for warning in exposures(settings):
        click.echo(f"Warning: {warning}", err=True)
