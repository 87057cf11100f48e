"""The one error a user can cause: shown as a single line, without a traceback."""


class UserError(ValueError):
    """Bad input: the message says what is wrong, what was received and what to do."""
