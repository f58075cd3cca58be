"""What a model does not answer as it was asked, over all benchmarks: where nothing else that is measured says much."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from calibnb.benchmarks import registry
from calibnb.benchmarks.capability import bundled
from calibnb.book import chapter, page, style
from calibnb.evidence.runs import Run

HARDLY = 0.1  # a share of readable answers below it


def shares(shown: Sequence[Run]) -> tuple[pd.DataFrame, list[str]]:
    """How often the answers to a kind of question can be read as what was asked for.

    Returns
    -------
    tuple[DataFrame, list[str]]
        Rows of ``model, kind, page, variant, value, low, high``: what pages call the model, the benchmark with its
        group, and a probability or share with its 95 % interval. And a line on each run that lacks tables.
    """
    parts, notes = [], []
    for name, benchmark in registry.benchmarks().items():
        labels = {measure.name: measure.label for measure in benchmark.measures if measure.answers}
        if not labels:
            continue
        found = chapter.Chapter(benchmark, shown)
        notes += [note for note in found.notes[1:] if note not in notes]
        here = found.summary[found.summary["measure"].isin(labels)]
        kind = [benchmark.title] * len(here)
        if len(labels) > 1:
            what = here["measure"].map({name: label.partition(":")[0] for name, label in labels.items()})
            kind = [f"{text}: {asked}" for text, asked in zip(kind, what, strict=True)]
        if benchmark.groups:
            groups = here[benchmark.groups].replace(style.SPLITS)
            kind = [f"{text}: {group}" for text, group in zip(kind, groups, strict=True)]
        parts.append(here.assign(kind=kind, page=name)[["model", "kind", "page", "variant", "value", "low", "high"]])
    return pd.concat(parts, ignore_index=True), notes


def silent(frame: pd.DataFrame) -> dict[str, list[str]]:
    """By model, the kinds of questions that all of its variants hardly answer.

    Parameters
    ----------
    frame : DataFrame
        As :func:`shares` has it.
    """
    best = frame.groupby(["model", "kind"], sort=False)["value"].max()
    return {
        str(model): [str(kind) for kind in part.index.get_level_values("kind")[part < HARDLY]]
        for model, part in best.groupby("model", sort=False)
    }


def named(kinds: Sequence[str]) -> str:
    """Kinds of questions as a sentence has them, those of a benchmark together: ``Structured sampling (unseen)``."""
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        title, _, group = kind.partition(": ")
        groups.setdefault(title, []).extend([group] if group else [])
    return page.listed([f"{title} ({', '.join(of)})" if of else title for title, of in groups.items()])


def guessed(scores: pd.DataFrame) -> dict[str, list[str]]:
    """By model, the bundled tasks in which no variant is shown to be better than guessing.

    Parameters
    ----------
    scores : DataFrame
        The summary of capability: rows of ``model, task, variant, low``.
    """
    chances = bundled.chances()
    best = scores[scores["task"].isin(chances)].groupby(["model", "task"], sort=False)["low"].max().reset_index()
    missed = best["low"] <= best["task"].map(chances)
    return {
        str(model): [str(task) for task in part["task"][missed[part.index]]]
        for model, part in best.groupby("model", sort=False)
    }
