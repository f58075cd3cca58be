"""What is asked in other ways: some of the questions of every benchmark of randomness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibnb.benchmarks.language import enumerated, suites
from calibnb.benchmarks.novelty import prompt_sets
from calibnb.evidence import results
from calibnb.laws import settings, specs

SETTINGS = Path("items/baselines/settings.jsonl")
ASKED = Path("items/baselines/asked.json")


def prepare(study: Any, folder: Path) -> None:
    """Write the questions, and how long an answer of each benchmark may be there.

    Parameters
    ----------
    study
        The whole of params.yaml.
    folder : Path
        Where the files go.
    """
    every, how = study.benchmarks, study.benchmarks.baselines
    everything = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    chosen = [s for s in everything if s.split in ("unseen", "held_out") and s.selected]
    asked = settings.questions(specs.spread(chosen, how.settings), study.prompt)
    settings.write_questions(asked, folder / SETTINGS.name)

    prompts = specs.evenly(prompt_sets.load_prompts(every.novelty.prompts), how.prompts)
    items = suites.load_items(every.language.items)
    if every.language.per_suite != "all":
        items = enumerated.of_each_suite(items, every.language.per_suite)
    items = [item for item in enumerated.of_each_suite(items, how.items) if item.suite != "paraphrases"]
    novelty = {"prompts", "generations", "max_new_tokens", "patience"}
    judge = {"judge_batch", "classifier", "classifier_tokenizer", "classifier_threshold"}
    content = {
        "structured": {"max_new_tokens": every.structured.sampled.max_new_tokens},
        "openended": {"max_new_tokens": every.openended.max_new_tokens},
        "positions": every.positions.model_dump(include={"answers", "domain", "max_new_tokens"}),
        "novelty": every.novelty.model_dump(include=novelty | judge) | {"ids": [p.id for p in prompts]},
        "language": every.language.model_dump(include={"items", "answers", "max_new_tokens"})
        | {"ids": [f"{item.suite}.{item.id}" for item in items]},
    }
    results.write_json(content, folder / ASKED.name)
