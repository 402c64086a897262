"""What is written is reachable: the routes of every module of the API, and every command."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import click

import ledger.api
import ledger.cli
from ledger.api.app import ROUTES
from ledger.cli.main import main


def modules_of(package: ModuleType) -> list[ModuleType]:
    return [import_module(f"{package.__name__}.{module.name}") for module in pkgutil.iter_modules(package.__path__)]


def commands_below(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from commands_below(child)


def test_the_routes_of_every_module_are_served() -> None:
    written = [route for module in modules_of(ledger.api) for route in getattr(module, "ROUTES", [])]

    assert [route for route in written if route not in ROUTES] == []


def test_every_command_is_reachable() -> None:
    written = {
        value.name
        for module in modules_of(ledger.cli)
        for value in vars(module).values()
        if isinstance(value, click.Command)
    }

    assert written <= {command.name for command in commands_below(main)}
