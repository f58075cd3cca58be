"""The categories of open-ended generation: a table of phrases, with members where they can be counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class Category:
    """One category.

    Attributes
    ----------
    name : str
        As in the table.
    prompt : str
        What a model is asked.
    members : tuple[tuple[str, ...], ...]
        The spellings of every member; empty where the category is open.
    """

    name: str
    prompt: str
    members: tuple[tuple[str, ...], ...]


@cache
def table() -> dict[str, Category]:
    """All categories by name, in the order of ``categories.yaml``; prompts take turns."""
    text = (files("calibnb.benchmarks.openended") / "categories.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    wordings: list[str] = raw["prompts"]
    return {
        name: Category(
            name,
            wordings[place % len(wordings)].format(phrase=entry["phrase"]),
            tuple(tuple(member.split("|")) for member in entry.get("members", ())),
        )
        for place, (name, entry) in enumerate(raw["categories"].items())
    }
