"""Answer positions: its measures and its claims.

Two forms: the letter of a right answer, chosen for questions that are given, and questions that the model writes, for
models that can.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.benchmarks.positions import choice, reading
from calibnb.evidence import intervals, verdicts
from calibnb.evidence.claims import SEED, Claim, Parquet, Section, Table, as_stated
from calibnb.evidence.runs import Run

FEW = 10  # questions whose positions are read: below, a distance from uniform says nothing


def _read_positions(run: Run, model: str, variants: Sequence[str]) -> pd.DataFrame:
    """Shares and distances of one variant with their intervals, of which the measures already are the summary.

    Nothing where no question was to be written.
    """
    (variant,) = variants
    found = json.loads((run.folder("positions", model) / f"{variant}.json").read_text())
    if "answers" not in found:
        return pd.DataFrame(columns=["measure", "value", "low", "high"])
    parse = {"measure": "parse", "value": found["parse_rate"]}
    exact = {"measure": "exact_total_variation", "value": found["exact_total_variation"]}
    rows = [row | {end: found[f"{row['measure']}_{end}"] for end in ("low", "high")} for row in (parse, exact)]
    if found["exact_questions"] < FEW:
        rows[1] |= dict.fromkeys(("value", "low", "high"))
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


def chosen(
    own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
) -> pd.DataFrame:
    """Measures of chosen letters, or mean paired differences of those of single prompts, over questions."""
    if other is None:
        return choice.summarise(own, resamples=resamples, seed=SEED)
    return intervals.compare_items(own, other, measures, item="question", resamples=resamples, seed=SEED)


TABLE = Table("positions", Parquet("positions", "choices", choice.of_prompts))

_letter = partial(
    Claim,
    TABLE,
    chosen,
    id="positions.{variant}.{measure}",
    source="results/positions/{slug}/{variant}.json#choice.{measure}",
)
LETTERS: Section = (
    _letter(
        "letter_mass",
        question="How often does {variant} answer with a letter when asked for one at random?",
        unit="probability, mean over prompts",
    ),
    _letter(
        "total_variation",
        question="How far from uniform is the letter that {variant} chooses?",
        unit="total variation, mean over prompts",
    ),
    _letter(
        "habit",
        question="How far from uniform are the letters that {variant} chooses, over all questions?",
        unit="total variation of the mean law",
    ),
)
_nearer = partial(
    _letter,
    "total_variation",
    id="positions.{variant}.choice_vs_{against}",
    unit="difference of total variations, mean over prompts",
    source="results/positions/{slug}/{variant}/choices.parquet",
    rule=verdicts.below_zero,
    rare="letter_mass",
)
_of_method = partial(
    _nearer,
    of="own",
    question="Does {variant} choose a letter more evenly than {reference}?",
    claim="{variant} chooses a letter more evenly than {reference}",
)
NEARER: Section = (
    _of_method(against="base"),
    _of_method(against="format"),
    _nearer(
        of=("hard",),
        against="soft",
        question="Does {variant} choose a letter more evenly than {against}?",
        claim="{variant} chooses a letter more evenly than {against}",
    ),
)

WRITTEN = Table("positions", _read_positions)

_position = partial(
    Claim,
    WRITTEN,
    as_stated,
    id="positions.{variant}.{measure}",
    source="results/positions/{slug}/{variant}.json#{measure}",
)
POSITIONS: Section = (
    _position(
        "parse",
        question="What is the share of multiple-choice questions that can be read of {variant}?",
        unit="share of texts",
    ),
    _position(
        "exact_total_variation",
        question="What is the distance of answer positions from uniform of {variant}?",
        unit="total variation, exact",
    ),
)

GIVEN = "letter_mass"

BENCHMARK = Benchmark(
    "positions",
    "Answer positions",
    TABLE,
    chosen,
    (
        Measure("letter_mass", "a letter is answered (probability)", "higher", pictured=True, answers=True),
        Measure("total_variation", "total variation given one prompt", "lower", GIVEN, pictured=True),
        Measure("entropy", "entropy given one prompt (bits)", "higher", GIVEN, pictured=True),
        Measure("habit", "habit of a letter (TV)", "lower", GIVEN, pictured=True),
        Measure("habit_listed", "habit of a place in the list (TV)", "lower", GIVEN, pictured=True),
        Measure("habit_right", "habit of right answer's place (TV)", "lower", GIVEN, pictured=True),
        Measure("largest", "largest share of a letter", "lower", GIVEN),
        *(Measure(f"share_{letter}", f"share of {letter}", given=GIVEN) for letter in reading.LETTERS),
    ),
    (LETTERS, NEARER, POSITIONS),
    kept={"choices": as_it_is},
)
