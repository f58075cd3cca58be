"""Asked in another way: its measures and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.baselines import summary
from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is, without
from calibnb.evidence.claims import Claim, Section, Table, as_stated
from calibnb.evidence.runs import Run


def read(run: Run, model: str, variants: Sequence[str]) -> pd.DataFrame:
    """The summary of one model: every variant asked plainly, and the ways of asking."""
    beside = pd.read_parquet(run.root / "baselines" / BESIDE)
    beside = beside[(beside["model"] == model) & beside["variant"].isin(variants)]
    tables = summary.read(run.folder("baselines", model), variants, run.seeds)
    return summary.summarise(tables, beside, resamples=run.resamples)


def _read_ways(run: Run, model: str, variants: Sequence[str]) -> pd.DataFrame:
    """The ways of asking alone, whose names stand where else a variant's does."""
    tables = summary.read(run.folder("baselines", model), variants, run.seeds)
    asked = summary.summarise(tables, None, resamples=run.resamples)
    return asked[~asked["variant"].isin(variants)]


BESIDE = "beside.parquet"
TABLE = Table("baselines", _read_ways, together=True)
EVERYTHING = Table("baselines", read, together=True)

_way = partial(
    Claim,
    TABLE,
    as_stated,
    id="baselines.{benchmark}.{variant}.{measure}",
    unit="share of answers",
    source="results/baselines/{slug}/base.json#{variant}.{benchmark}.{measure}",
)
WAYS: Section = (
    _way("valid_mass", question="How often does {variant} give an allowed number, on {benchmark}?"),
    _way("answered", question="How often does {variant} give an answer that is not empty, on {benchmark}?"),
    _way("parsed", question="How often does {variant} give a question that can be read, on {benchmark}?"),
    _way("valid", question="How often does {variant} give an answer as asked, on {benchmark}?"),
)

BENCHMARK = Benchmark(
    "baselines",
    "Inference-time baselines",
    EVERYTHING,
    as_stated,
    (
        Measure("structured.valid_mass", "numbers: allowed (share)", "higher", pictured=True, answers=True),
        Measure("structured.nw1", "numbers: nW1 given a number", "lower", "structured.number_mass", pictured=True),
        Measure(
            "openended.unique_fraction_folded",
            "categories: unique (share)",
            "higher",
            "openended.answered",
            pictured=True,
        ),
        Measure("positions.parsed", "questions: readable (share)", "higher", pictured=True, answers=True),
        Measure("novelty.distinct", "prompts: different answers", "higher", "novelty.answered", pictured=True),
        Measure("language.valid", "ordinary language: valid (share)", "higher", pictured=True, answers=True),
    ),
    (WAYS,),
    kept=dict.fromkeys((*summary.EVERY, *summary.WAYS), as_it_is) | {"positions": without("text")},
)
