"""Language modelling: its measures and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.benchmarks.perplexity import summaries
from calibnb.evidence import verdicts
from calibnb.evidence.claims import SEED, Claim, Parquet, Section, Table

Frame = pd.DataFrame


def slices(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Measures of every slice of text, and of all together."""
    if other is None:
        return summaries.summarise(own, resamples=resamples, seed=SEED)
    return summaries.compare(own, other, resamples=resamples, seed=SEED)


def length_of_text(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Measures of all slices of text together."""
    found = slices(own, other, measures, by=by, resamples=resamples)
    return found[found["slice"] == "all"]


TABLE = Table("perplexity", Parquet("perplexity", "documents"))

_text = partial(
    Claim,
    TABLE,
    length_of_text,
    "bits_per_byte",
)
PERPLEXITY: Section = (
    _text(
        id="perplexity.{variant}.{measure}",
        question="What is the length of text of {variant}?",
        unit="bits per byte",
        source="results/perplexity/{slug}/{variant}.json",
    ),
    _text(
        against="base",
        id="perplexity.{variant}.vs_{against}",
        question="Does {variant} change the length of text of {reference}?",
        claim="{variant} predicts text worse than {reference}",
        unit="difference, bits per byte",
        source="results/perplexity/{slug}/{variant}/documents.parquet",
        rule=verdicts.above_zero,
    ),
)

BENCHMARK = Benchmark(
    "perplexity",
    "Language modelling",
    TABLE,
    slices,
    (Measure("bits_per_byte", "bits per byte", "lower"), Measure("perplexity", "perplexity", "lower")),
    (PERPLEXITY,),
    groups="slice",
    kept={"documents": as_it_is},
)
