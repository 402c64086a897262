"""docs/map.md has every source file with the first line of its docstring."""

from scripts.update_map import differences


def test_the_map_has_every_source_file_with_its_line() -> None:
    found = differences()

    assert not found, "\n".join([*found, "Run scripts/update_map.py."])
