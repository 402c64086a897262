"""Blank texts: whether a name or title has no visible character, in any script."""

import unicodedata

_INVISIBLE = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf"))
"""Spaces, separators, control and format characters. Unassigned and private characters may be visible."""

_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Characters of other categories that are drawn as nothing: fillers, the empty Braille pattern, joiners."""


def is_blank(text: str) -> bool:
    """Whether a text has characters, and all are invisible."""
    if not text or "!" <= text[0] <= "~":
        return False
    return all(unicodedata.category(character) in _INVISIBLE or character in _BLANK_LETTERS for character in text)
