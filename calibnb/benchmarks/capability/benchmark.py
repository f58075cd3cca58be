"""Capability: its measures and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.capability import summaries
from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.evidence import verdicts
from calibnb.evidence.claims import SEED, Claim, Items, Parquet, Section, Table

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


def by_question(frame: Frame) -> Frame:
    """With one name for each question of all tasks."""
    return frame.assign(question=frame["task"] + " " + frame["item"].astype(str))


TABLE = Table("capability", Parquet("capability", "questions"))
WRITTEN = Table("capability", Parquet("capability", "arithmetic"))


def arithmetic_beside_rest(
    own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int
) -> Frame:
    """What tasks of arithmetic lose more than the others."""
    assert other is not None
    return summaries.arithmetic_beside_rest(own, other, resamples=resamples, seed=SEED).assign(measure="beside_rest")


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


def sums_of(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Means over written questions of arithmetic; nothing where none is asked."""
    if own.empty:
        return pd.DataFrame(columns=["measure", "value", "low", "high"])
    return Items("question")(
        by_question(own), other if other is None else by_question(other), measures, by=by, resamples=resamples
    )


_written = partial(
    Claim,
    WRITTEN,
    sums_of,
    id="capability.{variant}.arithmetic_{measure}",
    unit="share of written questions of arithmetic",
    source="results/capability/{slug}/{variant}/arithmetic.parquet",
)
_fewer = partial(
    _written,
    against="base",
    id="capability.{variant}.arithmetic_{measure}_vs_{against}",
    unit="difference, share of written questions of arithmetic",
    rule=verdicts.below_zero,
)
ARITHMETIC: Section = (
    _written("strict", question="How many sums does {variant} write as they are asked for?"),
    _written("lenient", question="How many of {variant}'s written sums end with the right number?"),
    _written("cut", question="How many of {variant}'s written sums are cut off?"),
    _fewer(
        "strict",
        question="Does {variant} write fewer right sums than {reference}, read strictly?",
        claim="{variant} writes fewer right sums than {reference}, read strictly",
    ),
    _fewer(
        "lenient",
        question="Does {variant} write fewer right sums than {reference}, read leniently?",
        claim="{variant} writes fewer right sums than {reference}, read leniently",
    ),
    Claim(
        TABLE,
        arithmetic_beside_rest,
        "beside_rest",
        against="base",
        id="capability.{variant}.arithmetic_vs_rest",
        question="Does {variant} lose more in arithmetic than in other tasks, against {reference}?",
        claim="{variant} loses more in arithmetic than in other tasks, against {reference}",
        unit="difference of changes of the share of right answers",
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
    (CAPABILITY, ARITHMETIC),
    groups="task",
    kept={"questions": as_it_is, "arithmetic": as_it_is},
)
