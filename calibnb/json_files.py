"""Json that users write, in files and a value a line: what cannot be read is one line that says where."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from calibnb.errors import UserError


def parse(data: bytes, name: str) -> Iterator[tuple[int, Any]]:
    """``(line number, value)`` from a file's bytes; `name` stands for it in errors. Blank lines are skipped.

    Raises
    ------
    UserError
        For the first line that is not utf-8, not json or no valid text, with its number.
    """
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        yield number, decode(line, f"{name}, line {number}")


def decode(data: bytes, where: str) -> Any:
    """The json value that `data` holds; `where` stands for it in errors.

    Raises
    ------
    UserError
        For what is not utf-8 or not json, for numbers that no float holds, brackets too deep to follow, a key given
        twice and text that no file can hold.
    """

    def number(text: str) -> int | float:
        if not math.isfinite(float(text)):
            raise UserError(f"{where}: {text[:20]}{'...' * (len(text) > 20)} is no number that a float holds")
        return int(text) if text.lstrip("-").isdigit() else float(text)

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for i, key in enumerate(keys) if key in keys[:i])
            raise UserError(f"{where}: the key {twice!a} is given twice")
        return names

    try:
        value = json.loads(data, object_pairs_hook=fields, parse_int=number, parse_float=number, parse_constant=number)
        # Which json can write, no tokenizer takes and no file can hold.
        half = re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not utf-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not json ({error.msg} at character {error.pos + 1})") from error
    except RecursionError:
        raise UserError(f"{where}: holds brackets within brackets, too deep to be read") from None
    if half is not None:
        raise UserError(f"{where}: holds half of a surrogate pair ({half[0]!a})")
    return value
