"""The settings that are measured, with their prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibnb.benchmarks.structured.measures import measured_settings
from calibnb.laws import settings, specs

SETTINGS = Path("items/structured/settings.jsonl")
SAMPLED = Path("items/structured/sampled.jsonl")


def prepare(study: Any, folder: Path) -> None:
    """Write the questions, and those of them that are asked by sampling as well.

    Parameters
    ----------
    study
        The whole of params.yaml.
    folder : Path
        Where the files go.
    """
    how = study.benchmarks.structured
    everything = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    measured = measured_settings(everything, how.settings)
    count = {"all": len(measured), "none": 0}.get(how.sampled.settings, how.sampled.settings)
    settings.write_questions(settings.questions(measured, study.prompt), folder / SETTINGS.name)
    sampled = specs.spread(measured, count)
    settings.write_questions(settings.questions(sampled, study.prompt), folder / SAMPLED.name)
