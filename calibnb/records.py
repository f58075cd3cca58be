"""Records that a parameter names: a file of one json value a line, or a split of a hub dataset."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibnb import hub
from calibnb.errors import UserError
from calibnb.params import HUB_SPLIT


def load(source: str, key: str, *words: str) -> Iterator[tuple[str, Any]]:
    """``(place, value)`` of every record; the place, a line or a row of the source, is for errors.

    Args:
        source: a local jsonl file, or a split of a hub dataset as `org/name:split` or `org/name:config:split`, which
            `datasets` downloads, keeps and reads in any format that has no code of its own.
        key: the parameter that names the source, and words: what else it may say; both are for errors.

    Raises:
        UserError: a source that cannot be had, a line that is not utf-8 or not json.
    """
    on_hub = HUB_SPLIT.fullmatch(source)
    if on_hub is not None:
        for number, value in enumerate(_split(source, key, *on_hub.groups()), start=1):
            yield f"{source}, row {number}", value
        return
    if not Path(source).is_file():
        allowed = ", ".join((*words, "a local jsonl file"))
        raise UserError(
            f"{key}: no file at {source!r}; allowed: {allowed}, or a split of a hub dataset as org/name:split or "
            "org/name:config:split"
        )
    for line, value in parse(Path(source).read_bytes(), source):
        yield f"{source}, line {line}", value


def _split(source: str, key: str, name: str, config: str | None, split: str) -> Any:
    import datasets  # takes a second to import, and most studies name no hub dataset

    try:
        with hub.asked():
            return datasets.load_dataset(name, config, split=split)
    except (*hub.FAILURES, OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{key}: {source} cannot be had from the hub ({type(error).__name__}: {reason}); connect or log in, name "
            "another split, or name a local jsonl file (/path/to/file.jsonl)"
        ) from error


def parse(data: bytes, name: str) -> Iterator[tuple[int, Any]]:
    """``(line number, value)`` from a file's bytes; `name` stands for it in errors. Blank lines are skipped.

    Raises UserError for the first line that is not utf-8, not json or no valid text, with its number.
    """
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        yield number, decode(line, f"{name}, line {number}")


def decode(data: bytes, where: str) -> Any:
    """The json value that `data` holds; `where` stands for it in errors.

    Raises UserError for what is not utf-8 or not json, for numbers that no float holds, brackets too deep to follow, a
    key given twice and text that no file can hold.
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
