"""NoveltyBench: its measures and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.evidence import verdicts
from calibnb.evidence.claims import Claim, Items, Parquet, Section, Table

Frame = pd.DataFrame


def novel(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Means over prompts, and how many answers each got."""
    found = Items("id")(own, other, measures, by=by, resamples=resamples)
    return found.assign(generations=int(own["generations"].iloc[0]))


TABLE = Table("novelty", Parquet("novelty", "prompts"))

_novelty = partial(
    Claim,
    TABLE,
    novel,
    id="novelty.{variant}.{measure}",
    source="results/novelty/{slug}/{variant}.json#{measure}",
)
NOVELTY: Section = (
    _novelty(
        "distinct",
        question="How many different answers does {variant} give to a prompt with many right ones?",
        unit="answers of {generations}",
    ),
    _novelty(
        "numbers",
        question="How often does {variant} answer such a prompt with a bare number?",
        unit="share of answers",
    ),
)
_more = partial(
    _novelty,
    "distinct",
    id="novelty.{variant}.distinct_vs_{against}",
    question="Does {variant} give more different answers than {reference}?",
    claim="{variant} gives more different answers to a prompt than {reference}",
    unit="difference in answers",
    source="results/novelty/{slug}/{variant}/prompts.parquet",
    rule=verdicts.above_zero,
    alike="numbers",
)
MORE_NOVELTY: Section = (_more(of="own", against="controls"),)
HARD_OR_SOFT: Section = (_more(of=("hard",), against="soft"),)

BENCHMARK = Benchmark(
    "novelty",
    "NoveltyBench",
    TABLE,
    Items("id"),
    (
        Measure("distinct", "different answers", "higher", pictured=True),
        Measure("utility", "utility (0 to 10)", "higher", pictured=True),
        Measure("numbers", "bare numbers (share of answers)", "lower", pictured=True),
        Measure("distinct_fraction", "different answers (share)", "higher"),
        Measure("short", "comparisons decided by shared words (share)"),
        Measure("empty", "empty answers", "lower"),
    ),
    (NOVELTY, MORE_NOVELTY, HARD_OR_SOFT),
    kept={"prompts": as_it_is},
)
