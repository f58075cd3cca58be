"""Files of one json value a line: fetched from where a parameter says, read so that a malformed line is named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from calibnb.errors import UserError
from calibnb.params import HUB

_HUB_FILE = re.compile(rf"({HUB.pattern}):(.+\.jsonl)")


def fetch(source: str, key: str, *words: str) -> bytes:
    """The bytes of a local jsonl file, or of a file of a hub dataset named as `org/name:path/in/repo.jsonl`.

    `key` is the parameter that names the file and `words` what else it may say; both are for the error.
    Raises UserError for a file that cannot be had.
    """
    on_hub = _HUB_FILE.fullmatch(source)
    if on_hub is not None and not source.startswith(("/", "./", "../")):
        repo, path = on_hub.groups()
        try:
            return Path(hf_hub_download(repo, path, repo_type="dataset")).read_bytes()
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise UserError(
                f"{key}: {source} cannot be had from the hub ({type(error).__name__}); connect or log in, or name a "
                "local jsonl file (/path/to/file.jsonl)"
            ) from error
    if not Path(source).is_file():
        allowed = ", ".join((*words, "a local jsonl file"))
        raise UserError(
            f"{key}: no file at {source!r}; allowed: {allowed}, or a file of a hub dataset as "
            "org/name:path/in/repo.jsonl"
        )
    return Path(source).read_bytes()


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
