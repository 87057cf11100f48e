"""The errors that are shown as a single line, without a traceback."""

import re
import sys


class UserError(ValueError):
    """Bad input: the message says what is wrong, what was received and what to do."""


class NotTestableError(UserError):
    """A number that cannot be had from these data: the message says why."""


def say(text: str) -> None:
    """A line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def first_line(error: Exception) -> str:
    """An error in one line, without the name of a folder on this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"(?<![\w/])/\S*/", "", lines[0])[:160] if lines else type(error).__name__
