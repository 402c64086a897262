"""The user of the command line, as the actor of the events that a command writes: `cli:<user>`."""

import getpass
import os

NAME_CHARACTERS_MAX = 90


def user_name() -> str:
    """Return the name of the user that runs the command; without one, as in some containers, the number."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid-{os.getuid()}"
    return "".join(character if character.isprintable() else "?" for character in name)[:NAME_CHARACTERS_MAX]


def command_line_actor() -> str:
    """Return the actor of events that a command writes. No API key can have such a name."""
    return f"cli:{user_name()}"
