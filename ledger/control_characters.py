"""Escape control characters of clients and of the database before a terminal or a log shows them.

A terminal obeys them: they can move the cursor, clear the screen, or make a second line that looks like another entry.
"""

import re

# C0 and C1 control characters, DEL, line and paragraph separators, and what changes the direction of the text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escape(text: str, keep: str = "") -> str:
    """Return a text with its control characters written as in Python, such as `\\x1b`; those in `keep` stay."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def escape_json(text: str) -> str:
    """Return JSON with the control characters in its strings escaped; line breaks between its tokens stay."""
    return _CONTROL.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)
