#!/usr/bin/env python3
"""Write docs/reference/events.md, http.md and command-line.md from the code.

With `--check` nothing is written: the files that are out of date are named, and the exit code is 1 if there are any.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ledger.api.app import ROUTES
from ledger.api.openapi import build
from ledger.api.problems import STATUS
from ledger.cli.main import main as command_line
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.codec import EventData, plans_of
from ledger.domain.errors import LedgerError
from ledger.domain.event_type import CATEGORIES, EventType
from scripts.source_texts import REPOSITORY

REFERENCE = REPOSITORY / "docs" / "reference"

GENERATED = "Generated from the code by `scripts/update_reference.py`.\n"

WIDTH = 100
"""Columns of the help texts."""

MEANINGS = {
    "method-not-allowed": "The address does not take this method.",
    "expectation-failed": "The header Expect has another value than 100-continue.",
}
"""Meanings of the problems that no error class of the ledger has."""

EVENTS_INTRODUCTION = """
An event as sent to `POST /v1/events`:

| field | type | meaning |
|---|---|---|
| `type` | string | one of the types below |
| `id` | UUID, optional | identity; if absent derived from the header `Idempotency-Key`, or new (UUIDv7) |
| `stream_id` | UUID, optional | the campaign, asset, job or budget entry; default for first events: `id` |
| `expected_version` | integer, optional | version of the stream before this event; if it differs: 409 |
| `occurred_at` | RFC 3339 time with zone, optional | when it happened; default: the time of recording |
| `correlation_id`, `causation_id` | UUID, optional | stored as sent |
| `data` | object | fields of the type; may be absent if none is required |

The ledger adds `position`, `category`, `version`, `schema_version`, `recorded_at`, `actor`, and the resolved
`campaign_id` and `agent_job_id`.

Identity is (category, `stream_id`, `id`). The same event sent again gets the original receipt with `duplicate: true`;
other content under the same identity is 409 `event-id-conflict`. Content is compared by value: each field that is sent
must equal the recorded one, and each recorded field that is not sent must be a default, or an inherited campaign or
currency. In JSON objects, the order of keys, escapes, and the spelling of numbers do not matter, except in large ones:
an object of more than about 10,000 values or 600 KB must be sent again as it was written.

`null` for an optional field means absent. Amounts are JSON numbers, or strings written like one, read from their text.
An object that names a member twice is refused, and so is an event with more than 200,000 values, or with more than
64,000 bytes of data besides its free text. *Free text* is stored apart from the data, so that it can be erased.
"""

COMMAND_LINE_INTRODUCTION = """
Exit codes: 0 success, 1 something was found wrong or failed, 2 wrong usage. `--json` prints a document for programs.

In a checkout the program is `.venv/bin/ledger`. To type `ledger` instead, and to have the shell complete commands and
options with the Tab key, run this in every new shell (or add it, with the full path, to `~/.bashrc`):

```bash
export PATH="$PWD/.venv/bin:$PATH"
eval "$(_LEDGER_COMPLETE=bash_source ledger)"
```

For zsh it is `zsh_source`, for fish `_LEDGER_COMPLETE=fish_source ledger | source`.
"""


def events() -> str:
    """Return the reference of event types."""
    parts = [f"# Events\n\n{GENERATED}{EVENTS_INTRODUCTION}"]
    for category in CATEGORIES:
        parts.append(f"\n## {category}\n")
        types = [kind for kind in CATALOGUE.values() if kind.category == category]
        parts += [_event_type(kind) for kind in types]
    return "".join(parts)


def _event_type(kind: EventType) -> str:
    lines = [f"\n### `{kind.name}`\n\n{_paragraph(kind.payload.__doc__)}\n\n{_transition(kind)}\n"]
    if fields := list(_fields(kind.payload)):
        lines.append("\n| field | type | |\n|---|---|---|\n")
        lines += [f"| {' | '.join(cells)} |\n" for cells in fields]
    return "".join(lines)


def _transition(kind: EventType) -> str:
    before, after = kind.transition.allowed_from, kind.transition.to
    sender = " Written by the service only." if kind.by_service else ""
    if not before:
        return f"Opens a stream; status: {after or 'as sent'}.{sender}"
    return f"Possible while: {', '.join(before)}. Status after it: {after or 'unchanged'}.{sender}"


def _fields(payload: type[EventData]) -> Iterator[tuple[str, str, str]]:
    schema = msgspec.json.schema(payload, schema_hook=lambda _: {"type": "string", "format": "date or date-time"})
    definitions = schema["$defs"]
    properties = definitions[payload.__name__]["properties"]
    for plan in plans_of(payload):
        described = properties[plan.name]
        notes = [note for note in ("free text" if plan.is_free_text else "", _default(plan.default)) if note]
        name = f"`{plan.name}`" if plan.required else f"`{plan.name}`?"
        yield name, _type(described, definitions), "; ".join(notes)


def _default(value: Any) -> str:
    return f"default `{value}`" if isinstance(value, int | str) and value != "" else ""


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        return " or ".join(_type(choice, definitions) for choice in choices)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") == "decimal":
        return "decimal"
    return ", ".join([str(schema.get("format") or schema.get("type") or "any"), *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if lowest is not None and highest is not None:
        # Counters end at powers of ten, positions at the end of a bigint.
        yield f"{lowest:,} to {highest:,}" if highest < 2**62 else f"≥ {lowest:,}"
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    if longest is not None:
        yield f"{shortest} to {longest:,} characters" if shortest else f"at most {longest:,} characters"


def http() -> str:
    """Return the reference of the HTTP API."""
    document = build(ROUTES)
    # A base class comes last, so it prevails over its subclasses.
    errors = reversed(list(_errors(LedgerError)))
    meanings = MEANINGS | {kind.slug: _paragraph((kind.__doc__ or "").partition("\n")[0]) for kind in errors}
    parts = [
        f"# HTTP\n\n{GENERATED}\n`GET /openapi.json` is the same as OpenAPI 3.1, with every schema. Errors are problem "
        "documents (RFC 9457): `type`, `title`, `status`, `detail`, and members that programs can act on.\n",
        "\n| problem | status | meaning |\n|---|---|---|\n",
        *(f"| `{slug}` | {status} | {meanings[slug]} |\n" for slug, status in STATUS.items()),
    ]
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        parts.append(f"\n## `{route.method} {route.path}`\n\n{_paragraph(operation['summary'])}\n")
        if description := operation.get("description"):
            parts.append(f"\n{_paragraph(description)}\n")
        parts.append(f"\nResponses: {', '.join(map(str, sorted(route.responses)))}.")
        if route.problems:
            parts.append(f" Problems: {', '.join(f'`{slug}`' for slug in route.problems)}.")
        parts.append("\n")
        if operation["parameters"]:
            parts.append("\n| parameter | in | type | |\n|---|---|---|---|\n")
            parts += [_parameter(parameter, document["components"]["schemas"]) for parameter in operation["parameters"]]
    return "".join(parts)


def _errors(kind: type[LedgerError]) -> Iterator[type[LedgerError]]:
    if "slug" in vars(kind):
        yield kind
    for subclass in kind.__subclasses__():
        yield from _errors(subclass)


def _parameter(parameter: dict[str, Any], definitions: dict[str, Any]) -> str:
    schema = parameter["schema"]
    item = schema.get("items", schema) if schema.get("type") == "array" else schema
    kind = _type(item, definitions) + (" (comma-separated)" if item is not schema else "")
    name = f"`{parameter['name']}`" if parameter["required"] else f"`{parameter['name']}`?"
    description = _paragraph(parameter.get("description") or schema.get("description") or "")
    return f"| {name} | {parameter['in']} | {kind} | {description} |\n"


def command_line_reference() -> str:
    """Return the help text of every command."""
    parts = [f"# Command line\n\n{GENERATED}{COMMAND_LINE_INTRODUCTION}"]
    for path, command in _commands(command_line, ("ledger",)):
        size = {"terminal_width": WIDTH, "max_content_width": WIDTH}
        context = click.Context(command, info_name=" ".join(path), **size, **command.context_settings)
        parts.append(f"\n## {' '.join(path)}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "".join(parts)


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _commands(child, (*path, name))


def _paragraph(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip().replace("|", "\\|")


def pages() -> dict[Path, str]:
    """Return the text of every generated page."""
    return {
        REFERENCE / "events.md": events(),
        REFERENCE / "http.md": http(),
        REFERENCE / "command-line.md": command_line_reference(),
    }


def main() -> None:
    """Write the pages, or name those that are out of date."""
    outdated = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in outdated:
            print(f"{path.relative_to(REPOSITORY)} is out of date: run scripts/update_reference.py")
        sys.exit(1 if outdated else 0)
    for path in outdated:
        path.write_text(pages()[path])
        print(f"Wrote {path.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
