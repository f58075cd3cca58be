"""The settings that are asked with place and spread told, not told, and told wrongly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from calibnb.errors import UserError
from calibnb.laws import settings, specs, telling
from calibnb.laws.settings import Question
from calibnb.laws.specs import Spec

FOLDER = Path("items/told")
WAYS = ("untold", "told", "wrong")

# What is told wrongly: the mean one standard deviation too high, the standard deviation twice as large.
SHIFT, STRETCH = 1.0, 2.0


def wrong(spec: Spec) -> str | None:
    """Wrong moments of a setting's law, as a prompt says them; None for a law that has none."""
    known = telling.moments(spec.law)
    return None if known is None else telling.in_words(known[0] + SHIFT * known[1], STRETCH * known[1])


def asked(chosen: list[Spec], study: Any) -> dict[str, list[Question]]:
    """The questions by the way in which they are asked; those whose law has no moments are never told wrongly."""
    template, names = study.prompt.template, study.prompt.parameter_names

    def question(spec: Spec, more: str) -> Question:
        return Question(spec, specs.prompt(spec, template, names, more))

    how = study.benchmarks.told.how
    return {
        "untold": [question(spec, "") for spec in chosen],
        "told": [question(spec, telling.told(spec.law, how)) for spec in chosen],
        "wrong": [question(spec, more) for spec in chosen if (more := wrong(spec)) is not None],
    }


def prepare(study: Any, folder: Path) -> None:
    """Write the questions, a file a way.

    Parameters
    ----------
    study
        The whole of params.yaml.
    folder : Path
        Where the files go.

    Raises
    ------
    UserError
        For more settings than a split has.
    """
    everything = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    how, chosen = study.benchmarks.told.settings, []
    for key, split in (("in_range", "validation"), ("unseen", "unseen"), ("held_out", "held_out")):
        pool = [spec for spec in everything if spec.split == split and not _certain(spec)]
        count = how.model_dump()[key]
        if count > len(pool):
            raise UserError(f"params.yaml: benchmarks.told.settings.{key}: must be <= {len(pool)}, got {count}")
        chosen += specs.spread(pool, count)
    for way, questions in asked(chosen, study).items():
        settings.write_questions(questions, folder / f"{way}.jsonl")


def _certain(spec: Spec) -> bool:
    """Whether a law is all but one value: it has no nW1."""
    low, high = spec.law.ppf([0.001, 0.999])
    return math.isclose(low, high)
