"""Examples in the help text of every command, and -h as --help."""

import click

HELP_OPTIONS = ["-h", "--help"]

EXAMPLES = {
    "ledger": ("ledger up --demo", "ledger status", "ledger doctor"),
    "ledger up": ("ledger up --demo", "ledger up --port 9000 --home /var/lib/ledger"),
    "ledger serve": ("ledger serve --host 0.0.0.0 --port 8080", "ledger serve --no-auth"),
    "ledger worker": ("ledger worker", "LEDGER_LOG_FORMAT=json ledger worker"),
    "ledger migrate": ("ledger migrate", "DIRECT_DATABASE_URL=postgresql://owner@db/ledger ledger migrate"),
    "ledger seed": ("ledger seed", "ledger seed --home trial"),
    "ledger reset": ("ledger reset", "ledger reset --yes --home trial"),
    "ledger status": ("ledger status", "ledger status --json"),
    "ledger doctor": ("ledger doctor", "ledger doctor --json"),
    "ledger events": ("ledger events tail --follow", "ledger events export ledger.ndjson.gz"),
    "ledger events append": (
        "ledger events append events.json",
        "ledger events append --independent - < events.ndjson",
    ),
    "ledger events tail": ("ledger events tail -n 50", "ledger events tail --after 1000 --follow --json"),
    "ledger events erase": ('ledger events erase 1042 --reason "requested by the person concerned"',),
    "ledger events export": (
        "ledger events export ledger.ndjson.gz",
        "ledger events export --until 1000 - | sha256sum",
    ),
    "ledger events import": ("ledger events import ledger.ndjson.gz --home restored",),
    "ledger verify": (
        "ledger verify",
        "ledger verify --export ledger.ndjson.gz --checkpoint checkpoint --key key",
    ),
    "ledger rebuild": ("ledger rebuild", "ledger rebuild --projection campaigns"),
    "ledger replay": (
        "ledger replay --until 1000 --schema at_1000",
        "ledger replay --until 2026-01-31T23:59:59Z --schema january",
    ),
    "ledger projections": ("ledger projections retry read_models",),
    "ledger projections retry": ("ledger projections retry read_models",),
    "ledger projections skip": (
        'ledger projections skip read_models --reason "corrected by the event at position 1042"',
    ),
    "ledger prices": ("ledger prices import genai-prices", "ledger prices show gpt-4o"),
    "ledger prices import": (
        "ledger prices import genai-prices --dry-run",
        "ledger prices import negotiated.json",
    ),
    "ledger prices list": ("ledger prices list --provider anthropic", "ledger prices list --at 2025-06-30 --json"),
    "ledger prices show": ("ledger prices show gpt-4o", "ledger prices show gpt-4o --provider openai --at 2025-06-30"),
    "ledger prices quote": (
        "ledger prices quote openai gpt-4o input_tokens=1200 output_tokens=350",
        "ledger prices quote anthropic claude-sonnet-4-5 input_tokens=9000 cache_read_tokens=8000 --tier batch",
    ),
    "ledger prices reprice": ("ledger prices reprice --dry-run", "ledger prices reprice --adjust"),
    "ledger audit": ('ledger audit accept-rollback --reason "server lost; restored from the dump of 02:00"',),
    "ledger audit accept-rollback": (
        'ledger audit accept-rollback --reason "server lost; restored from the dump of 02:00"',
    ),
    "ledger keys": ("ledger keys create dashboard --role viewer", "ledger keys list"),
    "ledger keys create": (
        "ledger keys create dashboard --role viewer",
        "ledger keys create researcher --role agent --campaign 11111111-1111-4111-8111-111111111111",
    ),
    "ledger keys list": ("ledger keys list", "ledger keys list --json"),
    "ledger keys revoke": ("ledger keys revoke researcher",),
    "ledger backup": ("ledger backup ledger.dump",),
    "ledger restore": ("ledger restore ledger.dump", "ledger restore ledger.dump --home restored"),
    "ledger upgrade-embedded": ("ledger upgrade-embedded",),
    "ledger bench": ("ledger bench --quick", "ledger bench --only append_single --rounds 3"),
}
"""Examples by command; `tests/cli/test_help.py` checks that each command has some, and that their options exist."""


def add_help(command: click.Command, path: str = "ledger") -> None:
    """Add -h and the examples to a command and to the commands below it.

    Args:
        command: the command or group to change.
        path: what a user types to run it, such as `ledger keys create`.
    """
    command.context_settings = {**command.context_settings, "help_option_names": HELP_OPTIONS}
    # \b keeps click from wrapping the lines.
    command.epilog = "\n".join(("\b", "Examples:", *(f"  {example}" for example in EXAMPLES.get(path, ()))))
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            add_help(child, f"{path} {name}")
