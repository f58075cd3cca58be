"""Randomness in ordinary language: its measures and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.declaration import Benchmark, Measure, without
from calibnb.evidence import results, verdicts
from calibnb.evidence.claims import Chapter, Claim, Items, Parquet, Section, Table
from calibnb.evidence.runs import Run

ENUMERATED = Table("language", Parquet("language", "exact"))
PARAPHRASES = Table("language", Parquet("language", "paraphrases"))


def _in_language(table: Table, kind: str, error: str, item: str) -> tuple[Section, Section, Section]:
    """Values and comparisons of the suites in a table.

    Parameters
    ----------
    table : Table
        The table of the suites.
    kind : str
        Ends the names of the table's files.
    error : str
        The measure, 1 for the best constant answer.
    item : str
        Column of what is resampled.
    """
    row = partial(
        Claim,
        table,
        Items(item),
        groups="suite",
        id="language.{suite}.{variant}.{measure}",
        source="results/language/{slug}/{variant}.json#{suite}.{measure}",
    )
    values = (
        row(error, question="What is the error of {variant} on {suite}?", unit="1 = the best constant answer"),
        row("valid_mass", question="What is the validity of {variant} on {suite}?", unit="probability"),
    )
    closer = partial(
        row,
        error,
        id="language.{suite}.{variant}.error_vs_{against}",
        question="Is {variant} closer to the stated law than {reference} on {suite}?",
        claim="{variant} has a smaller error on {suite} than {reference}",
        unit="difference of errors, 1 = the best constant answer",
        source=f"results/language/{{slug}}/{{variant}}/{kind}.parquet",
        rule=verdicts.below_zero,
        rare="valid_mass",
    )
    return values, (closer(of="own", against="controls"),), (closer(of=("hard",), against="soft"),)


CLAIMS: Chapter = (
    *_in_language(ENUMERATED, "exact", "normalised_tv", "id"),
    *_in_language(PARAPHRASES, "paraphrases", "nw1", "label"),
)


def by_item(run: Run, model: str, variants: Sequence[str]) -> pd.DataFrame:
    """One row an item of any suite: how often it is answered as asked, and the error on the scale of its suite."""

    def read(table: str) -> pd.DataFrame:
        return results.measurements(run.folder("language", model), variants, table, run.seeds)

    exact = read("exact").assign(validity=lambda t: t["valid_mass"], error=lambda t: t["normalised_tv"])
    words = read("paraphrases").assign(validity=lambda t: t["valid_mass"], error=lambda t: t["nw1"])
    drawn = read("sampled").assign(
        validity=lambda t: t["valid"], error=lambda t: t["pooled_tv_ratio"].fillna(t["first_tv_ratio"])
    )
    # Six wordings of a law are no six independent items: what is resampled there are the laws.
    parts = [exact.assign(unit=exact["id"]), words.assign(unit=words["label"]), drawn.assign(unit=drawn["id"])]
    columns = ["model", "variant", "seed", "suite", "unit", "validity", "error"]
    return pd.concat([frame[columns] for frame in parts], ignore_index=True)


BENCHMARK = Benchmark(
    "language",
    "Randomness in ordinary language",
    Table("language", by_item),
    Items("unit"),
    (
        Measure("validity", "validity (probability or share)", "higher", answers=True),
        Measure("error", "error (1 = the best constant answer)", "lower", given="validity"),
    ),
    CLAIMS,
    groups="suite",
    kept=dict.fromkeys(("exact", "paraphrases", "sampled"), without("prompt")),
)
