"""`LeftOut`: what an import of prices cannot express, and why. It is listed, never approximated."""

from collections.abc import Iterable

import msgspec


class LeftOut(msgspec.Struct, frozen=True, order=True):
    """A part of a price list that was not imported; `part` is `model`, `rate`, `name` or `tier`."""

    part: str
    reason: str
    provider: str
    model: str
    detail: str = ""

    def __str__(self) -> str:
        """Return what was left out, in one line."""
        detail = f" {self.detail}" if self.detail else ""
        return f"{self.provider}/{self.model}{detail}"


def by_reason(items: Iterable[LeftOut]) -> dict[tuple[str, str], list[LeftOut]]:
    """Group what was left out by part and reason, in alphabetical order."""
    groups: dict[tuple[str, str], list[LeftOut]] = {}
    for item in sorted(items):
        groups.setdefault((item.part, item.reason), []).append(item)
    return groups
