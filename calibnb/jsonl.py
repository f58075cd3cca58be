"""Files of one json value a line, read so that a malformed line is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from calibnb.errors import UserError


def values(data: bytes, name: str) -> Iterator[tuple[int, Any]]:
    """``(line number, value)`` from a file's bytes; `name` stands for it in errors. Blank lines are skipped.

    Raises UserError for the first line that is not utf-8 or not json, with its number.
    """
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not utf-8 (byte {error.start + 1})") from error
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not json ({error.msg} at character {error.pos + 1})") from error
        yield number, value
