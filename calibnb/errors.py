"""The one exception that a user is meant to read, and the failure that any writer may meet: a full disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

# No space, a quota, a limit on the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Something the user can put right: a parameter, a file, a model, a connection.

    Its text is one line that names the key or the file, what was found there and what is allowed.
    Command lines print that line and exit with status 1; no traceback is shown.
    """


def full_disk(error: BaseException | None) -> int | None:
    """The error number of `FULL` that is behind an error; None where there is none.

    Libraries raise errors of their own on the way: the number is in what they came from (torch), or in their text alone
    (safetensors, and what other programs print).
    """
    while error is not None:
        found = error.errno if isinstance(error, OSError) else None
        if found is None and (said := re.search(r"\b(?:errno|os error) (\d+)", str(error), re.IGNORECASE)):
            found = int(said[1])
        if found in FULL:
            return found
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def room(path: Path, needed: int | None = None) -> Iterator[None]:
    """Around what writes the file or folder `path`: a full disk becomes a `UserError`, other errors stay as they are.

    Parameters
    ----------
    path : Path
        What the block writes.
    needed : int or None
        Bytes that are to be written, where they are known; the error says them beside what was free at the start.
    """
    free = shutil.disk_usage(next(place for place in path.absolute().parents if place.is_dir())).free
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        number = full_disk(error)
        if number is None:
            raise
        missing = f"{free / 1e6:,.1f} MB were free" + (f", {needed / 1e6:,.1f} MB are needed" if needed else "")
        raise UserError(f"{path}: {os.strerror(number)}: {missing}; make room and run this again") from error
