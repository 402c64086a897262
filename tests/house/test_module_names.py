"""A file name has one meaning: modules share it only if they are about one thing in several layers."""

from collections import defaultdict

from scripts.source_texts import relative, tracked_files

SHARED = {
    "agent_jobs": "the table of jobs: its fold and its model",
    "append": "POST /v1/events, and the transaction behind it",
    "backup": "backups of the embedded PostgreSQL, and the commands for them",
    "budget_entries": "the table of budget entries: its fold and its model",
    "campaigns": "the table of campaigns: its fold and its model",
    "content_assets": "the table of content: its fold and its model",
    "errors": "the errors of a package",
    "events": "the events of the log, over HTTP and on the command line",
    "export": "the export of the log, over HTTP and on the command line",
    "keys": "API keys",
    "ledger_events": "events of the category `ledger`: their types, and what the log does with them",
    "prices": "prices: the table's fold and its model, and the price book over HTTP",
    "projections": "the state of the read models, over HTTP and on the command line",
    "replay": "the replay, and the commands that use it",
    "tables": "the tables of a schema",
}
"""File names that several layers share, and what all of them are about."""


def test_modules_of_one_name_are_about_one_thing() -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for path in tracked_files("ledger/*.py", "projections/*.py"):
        modules[path.stem].append(relative(path))
    shared = {name: paths for name, paths in modules.items() if len(paths) > 1 and not name.startswith("__")}

    assert {name: paths for name, paths in shared.items() if name not in SHARED} == {}
    assert set(SHARED) - set(shared) == set(), "names that are no longer shared"
