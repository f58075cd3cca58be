"""NoveltyBench: how many different answers does a model give, and how useful are they together?

A prompt is answered several times and the answers are cut into classes that say the same (Zhang et al., 2025,
arXiv 2504.05228). *distinct* is the number of classes. *Utility* asks what the answers are worth to a reader who
goes on to the next one with probability `patience`: a class counts once, with the rating of its first member.

Who decides that two answers say the same: for answers of a few words a rule on shared words; for longer ones
the published pair classifier, or a small sentence encoder where that cannot be had, whose threshold is set, and
whose error is measured, on pairs of known verdict that come with the library. Ratings are a reward model's;
without one there is no utility, it is never guessed.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import numpy as np
import numpy.typing as npt
import pandas as pd

from calibnb import records
from calibnb.errors import UserError

Bools = npt.NDArray[np.bool_]
Pair = tuple[str, str]
Same = Callable[[Sequence[Pair]], list[bool]]  # whether the two answers of each pair say the same


@dataclass(frozen=True)
class Prompt:
    """One prompt; `category` is None where the file names none."""

    id: str
    prompt: str
    category: str | None


def load_prompts(source: str) -> list[Prompt]:
    """Prompts in the order of their source.

    Parameters
    ----------
    source : str
        `bundled` (60 prompts of five kinds, short enough for a small model), a local jsonl file, or a split of a hub
        dataset (`records.load`; the published ones are `yimingzhang/novelty-bench:curated` and `:wildchat`). A record
        is an object with the texts `id` and `prompt` and, if it likes, `category`; other keys are ignored.

    Raises
    ------
    UserError
        For a source that cannot be had and for the first malformed record, with its number.
    """
    with importlib.resources.as_file(_bundled("prompts.jsonl")) as bundled:
        found = list(
            records.load(str(bundled) if source == "bundled" else source, "benchmarks.novelty.prompts", "bundled")
        )
    prompts: dict[str, Prompt] = {}
    for where, record in found:
        if not isinstance(record, dict):
            raise UserError(f"{where}: a {type(record).__name__}; must be an object with the keys id and prompt")
        for key in ("id", "prompt"):
            if key not in record:
                raise UserError(f"{where}: no {key}; must be an object with the keys id and prompt")
            if not isinstance(record[key], str) or not record[key].strip():
                raise UserError(f"{where}: {key} must be a text that is not empty, got {record[key]!r}")
        category = record.get("category")
        if category is not None and not isinstance(category, str):
            raise UserError(f"{where}: category must be a text, got {category!r}")
        if record["id"] in prompts:
            raise UserError(f"{where}: the id {record['id']!r} is taken by an earlier one")
        prompts[record["id"]] = Prompt(record["id"], record["prompt"], category)
    if not prompts:
        raise UserError(f"{source}: no prompt in it; must hold one object a line with the keys id and prompt")
    return list(prompts.values())


def load_pairs() -> pd.DataFrame:
    """The bundled pairs of answers with known verdict: columns prompt, a, b, same (bool).

    Prompts are bundled ones, answers have 6 to 40 words. `same` holds where both name the same thing or tell the
    same, whatever the wording, order and length. Half of the pairs are the same; among the others are many in the
    same words about another thing, and among the same many in other words, so that shared words do not tell.
    """
    return pd.DataFrame([json.loads(line) for line in _bundled("same_answers.jsonl").read_bytes().splitlines()])


def _bundled(name: str) -> Traversable:
    return importlib.resources.files("calibnb.benchmarks.novelty") / name


def out_of_reach(name: str, instead: str, error: Exception) -> UserError:
    return UserError(
        f"novelty: {name} cannot be had from the hub ({type(error).__name__}); connect or log in, or name {instead}"
    )
