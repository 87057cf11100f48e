"""The errors that are shown as a single line, without a traceback."""


class UserError(ValueError):
    """Bad input: the message says what is wrong, what was received and what to do."""


class NotTestableError(UserError):
    """A number that cannot be had from these data: the message says why."""
