"""Capability: its measures and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.capability import summaries
from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.evidence import verdicts
from calibnb.evidence.claims import SEED, Claim, Parquet, Section, Table

Frame = pd.DataFrame


def tasks(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """The score of every task, and over all of them, which count alike."""
    if other is None:
        return summaries.summarise(own, resamples=resamples, seed=SEED).assign(measure="score")
    return summaries.compare(own, other, resamples=resamples, seed=SEED).assign(measure="score")


def right_answers(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """The score over all tasks alone."""
    found = tasks(own, other, measures, by=by, resamples=resamples)
    return found[found["task"] == summaries.ALL]


TABLE = Table("capability", Parquet("capability", "questions"))

_able = partial(
    Claim,
    TABLE,
    right_answers,
    "score",
)
CAPABILITY: Section = (
    _able(
        id="capability.{variant}.{measure}",
        question="What is the share of right answers of {variant}?",
        unit="share, mean over tasks",
        source="results/capability/{slug}/{variant}.json",
    ),
    _able(
        against="base",
        id="capability.{variant}.vs_{against}",
        question="Does {variant} change the share of right answers of {reference}?",
        claim="{variant} answers fewer questions right than {reference}",
        unit="difference, share, mean over tasks",
        source="results/capability/{slug}/{variant}/questions.parquet",
        rule=verdicts.below_zero,
    ),
)

BENCHMARK = Benchmark(
    "capability",
    "Capability",
    TABLE,
    tasks,
    (Measure("score", "right answers (share)", "higher"),),
    (CAPABILITY,),
    groups="task",
    kept={"questions": as_it_is},
)
