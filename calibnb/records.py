"""Records that a parameter names: a file of one json value a line, or a split of a hub dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibnb.errors import UserError
from calibnb.json_files import parse
from calibnb.models import hub
from calibnb.models.places import HUB_SPLIT


def load(source: str, key: str, *words: str) -> Iterator[tuple[str, Any]]:
    """``(place, value)`` of every record; the place, a line or a row of the source, is for errors.

    Parameters
    ----------
    source : str
        A local jsonl file, or a split of a hub dataset as `org/name:split` or `org/name:config:split`, which `datasets`
        downloads, keeps and reads in any format that has no code of its own.
    key : str
        The parameter that names the source, for errors.
    *words : str
        What else it may say, for errors.

    Raises
    ------
    UserError
        A source that cannot be had, a line that is not utf-8 or not json.
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
