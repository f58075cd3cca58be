"""Structured sampling: its measures and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.benchmarks.structured import summary
from calibnb.evidence import intervals, results, verdicts
from calibnb.evidence.claims import Claim, Parquet, Section, Table, by_split, families
from calibnb.evidence.runs import Run

Frame = pd.DataFrame


def _with_highest_mass(frame: Frame) -> Frame:
    return frame.assign(valid_mass_at_most=frame["valid_mass"] + frame["certificate"])


def inside_the_band(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """The share of sampled nW1 in the band that the exact law implies, among those ``drawn`` that have one."""
    drawn = own.dropna(subset=["expected"])
    if drawn.empty:
        return pd.DataFrame()
    inside = int(drawn["nw1"].between(drawn["low"], drawn["high"]).sum())
    low, high = intervals.wilson(inside, len(drawn))
    share = {"measure": "agreement", "value": inside / len(drawn), "low": low, "high": high, "drawn": len(drawn)}
    return pd.DataFrame([share])


def _read_sampled(run: Run, model: str, variants: Sequence[str]) -> Frame:
    """Sampled settings of all variants but those with ordinary examples, whose methods are there without them."""
    plain = [variant for variant in variants if variant not in run.mixed]
    return results.measurements(run.folder("structured", model), plain, "sampled", run.seeds)


TABLE = Table("structured", Parquet("structured", "settings", prepare=_with_highest_mass))
SAMPLED = Table("structured", _read_sampled, together=True)

_number = partial(
    Claim,
    TABLE,
    by_split,
    groups="split",
    id="structured.{key}.{variant}.{measure}",
    source="results/structured/{slug}/{variant}.json#{key}.{measure}",
)
_nw1 = partial(
    _number,
    "nw1",
    question="What is the normalised W1 given a number of {variant} {where}?",
    unit="1 = always the median",
    determined=True,
)
NUMBERS: Section = (
    _nw1(of="own", claim="{variant} draws better {where} than always answering the median", rule=verdicts.below_one),
    _nw1(of="other"),
    _number(
        "valid_mass",
        question="What is the probability of an allowed number of {variant} {where}?",
        unit="probability, settled by the search",
    ),
    _number(
        "valid_mass_at_most",
        question="What is the highest possible probability of an allowed number of {variant} {where}?",
        unit="probability, with all that is unresolved",
    ),
    _number("kl_format", question="What is the KL of the format of {variant} {where}?", unit="nats per answer"),
    _number("kl_shape", question="What is the KL of the shape of {variant} {where}?", unit="nats per answer"),
    _number(
        "nw1_slack",
        question="What is the most that the search leaves open of nW1 of {variant} {where}?",
        unit="1 = always the median",
    ),
)
_ratio = partial(
    _number,
    of="own",
    unit="ratio of family medians",
    source="results/structured/{slug}/{variant}/settings.parquet",
    rule=verdicts.below_one,
)
AGAINST_CONTROLS: Section = (
    _ratio(
        "nw1",
        against="controls",
        id="structured.{key}.{variant}.w1_vs_{against}",
        question="Does {variant} draw more faithfully than {reference} {where}?",
        claim="{variant} lowers nW1 {where}, against {reference}",
        determined=True,
    ),
    _ratio(
        "kl_shape",
        against="format",
        id="structured.{key}.{variant}.shape_vs_format",
        question="Does {variant} have a smaller KL of the shape than {reference} {where}?",
        claim="{variant} lowers the KL of the shape {where}, against {reference}",
    ),
    _ratio(
        "total_variation",
        against="format",
        id="structured.{key}.{variant}.tv_vs_format",
        question="Does {variant} have a smaller total variation than {reference} {where}?",
        claim="{variant} lowers total variation {where}, against {reference}",
        unit="ratio of family medians, with all but canonical strings as error",
    ),
)
HARD_OR_SOFT: Section = (
    _number(
        "nw1",
        of=("hard",),
        against="soft",
        id="structured.{key}.{variant}.w1_vs_{against}",
        question="Is {variant} better than {against} at numbers {where}?",
        claim="{variant} has the lower nW1 {where}, against {against}",
        unit="ratio of family medians",
        source="results/structured/{slug}/{variant}/settings.parquet",
        rule=verdicts.below_one,
        determined=True,
    ),
)
SAMPLING: Section = (
    Claim(
        SAMPLED,
        inside_the_band,
        "agreement",
        id="structured.sampled.agreement",
        question="How many sampled values lie in the 95 % band that the exact law implies?",
        unit="share of {drawn}",
        source="results/structured/{slug}",
    ),
)

BENCHMARK = Benchmark(
    "structured",
    "Structured sampling",
    TABLE,
    families,
    (
        Measure("nw1", "normalised W1 (0 perfect, 1 always the median)", "lower"),
        Measure("valid_mass", "probability of an allowed number", "higher", answers=True),
        Measure("certificate", "unresolved probability"),
        Measure("nw1_slack", "most that is open of nW1"),
        Measure("kl_format", "KL of the format (nats)", "lower"),
        Measure("kl_shape", "KL of the shape (nats)", "lower"),
        Measure("total_variation", "total variation, all but canonical answers as error", "lower"),
        Measure("kolmogorov", "largest gap between cumulative curves", "lower"),
        Measure("top5_mass", "probability of the five likeliest numbers"),
    ),
    (NUMBERS, AGAINST_CONTROLS, HARD_OR_SOFT, SAMPLING),
    groups="split",
    kept={"settings": as_it_is, "laws": summary.thinned, "sampled": as_it_is},
)
