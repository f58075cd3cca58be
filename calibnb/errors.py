"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: a parameter, a file, a model, a connection.

    Its text is one line that names the key or the file, what was found there and what is allowed.
    Command lines print that line and exit with status 1; no traceback is shown.
    """
