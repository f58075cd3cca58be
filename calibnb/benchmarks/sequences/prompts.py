"""What is asked: laws to draw from many times in one answer, and lists to shuffle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from scipy import stats

from calibnb.laws.canonical import quantile_range
from calibnb.laws.distances import Law
from calibnb.laws.families import FAMILIES
from calibnb.laws.specs import evenly


@dataclass(frozen=True)
class Target:
    """A law to draw from.

    Attributes
    ----------
    label : str
        Its name in the table.
    phrase : str
        What a prompt calls it.
    law : Law
        Frozen scipy law.
    low, high : float
        Its 0.001 and 0.999 quantiles.
    outcomes : Mapping[str, float]
        Spellings in lower case of what may be drawn, and their numbers; empty where numbers are written as such.
    """

    label: str
    phrase: str
    law: Law
    low: float
    high: float
    outcomes: Mapping[str, float]


@dataclass(frozen=True)
class Request:
    """A prompt for `asked` draws from a law, in the wording of that number."""

    target: Target
    wording: int
    asked: int
    prompt: str


@dataclass(frozen=True)
class Shuffle:
    """A prompt for a list in random order, whose `entries` are as it gives them."""

    label: str
    entries: tuple[str, ...]
    prompt: str


@cache
def _raw() -> dict[str, Any]:
    text = (files("calibnb.benchmarks.sequences") / "items.yaml").read_text(encoding="utf-8")
    raw: dict[str, Any] = yaml.safe_load(text)
    return raw


def sizes() -> dict[str, int]:
    """How many laws, lists and wordings of a law there are."""
    return {name: len(_raw()[name]) for name in ("laws", "lists", "wordings")}


@cache
def targets() -> dict[str, Target]:
    """All laws by their labels, in the order of ``items.yaml``."""
    found = {}
    for label, entry in _raw()["laws"].items():
        if "die" in entry:
            law = stats.randint(1, entry["die"] + 1)
        else:
            family = FAMILIES[entry["family"]]
            for parameter in family.parameters:
                parameter.check(entry["parameters"][parameter.name])
            law = family.frozen(**entry["parameters"])
        outcomes = {text: float(number) for text, number in entry.get("outcomes", {}).items()}
        found[label] = Target(label, entry["phrase"], law, *quantile_range(law), outcomes)
    return found


def requests(laws: int | Literal["all"], wordings: int, lengths: Sequence[int]) -> list[Request]:
    """Prompts for many draws, law by law.

    Parameters
    ----------
    laws : int or "all"
        How many laws, evenly spaced over the table.
    wordings : int
        In how many of the table's wordings each is asked; they take turns.
    lengths : Sequence[int]
        Draws asked for in one answer.
    """
    templates = _raw()["wordings"]
    chosen = list(targets().values())
    if laws != "all":
        chosen = evenly(chosen, laws)
    return [
        Request(target, wording, asked, templates[wording].format(count=asked, phrase=target.phrase))
        for place, target in enumerate(chosen)
        for wording in [(place + turn) % len(templates) for turn in range(wordings)]
        for asked in lengths
    ]


def shuffles(lists: int | Literal["all"]) -> list[Shuffle]:
    """Prompts for a random order of so many lists, evenly spaced over the table, one each; wordings take turns."""
    templates, table = _raw()["orders"], list(_raw()["lists"].items())
    chosen = table if lists == "all" else evenly(table, lists)
    return [
        Shuffle(
            label,
            tuple(entries),
            templates[place % len(templates)].format(count=len(entries), entries=", ".join(entries)),
        )
        for place, (label, entries) in enumerate(chosen)
    ]
