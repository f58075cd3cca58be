"""Knowledge or calibration: its measures and its claims."""

from __future__ import annotations

from functools import partial

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.benchmarks.told.gaps import gap_closed, told_ratio
from calibnb.evidence import verdicts
from calibnb.evidence.claims import Claim, Parquet, Section, Table, by_split, families

TABLE = Table("told", Parquet("told", "settings"))

_value = partial(
    Claim,
    TABLE,
    by_split,
    groups="split",
    id="told.{key}.{variant}.{measure}",
    source="results/told/{slug}/{variant}.json#{key}.{measure}",
)
VALUES: Section = (
    _value(
        "nw1_untold",
        question="What is nW1 of {variant} {where}, where the prompt gives the parameters alone?",
        unit="1 = always the median",
    ),
    _value(
        "nw1_told",
        question="What is nW1 of {variant} {where}, where the prompt also tells place and spread?",
        unit="1 = always the median",
    ),
    _value(
        "place_untold",
        question="How much of nW1 of {variant} {where} is place and scale?",
        unit="1 = always the median",
    ),
    _value("shape_untold", question="How much of nW1 of {variant} {where} is shape?", unit="1 = always the median"),
    _value(
        "followed_place",
        question="How far does {variant} follow a wrong mean {where}?",
        unit="1 = all the way, 0 = not at all",
    ),
    _value(
        "valid_mass_told",
        question="What is the probability of an allowed number of {variant} {where}, when told?",
        unit="probability, settled by the search",
    ),
)
_ratio = partial(
    Claim,
    TABLE,
    told_ratio,
    "told_ratio",
    groups="split",
    unit="ratio of family medians of nW1",
    source="results/told/{slug}/{variant}/settings.parquet",
    rule=verdicts.below_one,
    rare="valid_mass_told",
    rare_against="valid_mass_untold",
)
GAINS: Section = (
    _ratio(
        id="told.{key}.{variant}.told_vs_untold",
        question="Does {variant} come closer to the target {where} when it is told where the law lies?",
        claim="told where the law lies, {variant} comes closer to the target {where} than untold",
    ),
    _ratio(
        of=("told",),
        against="hard",
        id="told.{key}.{variant}.told_vs_{against}",
        question="Does {variant}, told where the law lies, come closer to the target {where} than {against}, untold?",
        claim="told where the law lies, {variant} comes closer to the target {where} than {against} does untold",
    ),
)
_gap = partial(
    Claim,
    TABLE,
    gap_closed,
    "gap_closed",
    unit="share of the gap between held-out families and in range",
    source="results/told/{slug}/{variant}/settings.parquet",
)
GAPS: Section = (
    _gap(
        of="own",
        id="told.{variant}.gap_closed",
        question="How much of the gap between in range and held out closes when {variant} is told where a law lies?",
    ),
    _gap(
        of=("told",),
        against="hard",
        id="told.{variant}.gap_closed_vs_{against}",
        question="How much of the gap of {against}, untold, is closed by {variant}, told where a law lies?",
        claim="told where the law lies, {variant} closes more than half of the gap that {against} leaves, untold",
        rule=verdicts.above_half,
        rare="valid_mass_told",
        rare_against="valid_mass_untold",
    ),
)

BENCHMARK = Benchmark(
    "told",
    "Knowledge or calibration",
    TABLE,
    families,
    (
        Measure("nw1_untold", "normalised W1, not told (0 perfect, 1 always the median)", "lower"),
        Measure("nw1_told", "normalised W1, told place and spread", "lower"),
        Measure("place_untold", "its part of place and scale, not told", "lower"),
        Measure("shape_untold", "its part of shape, not told", "lower"),
        Measure("place_told", "its part of place and scale, told", "lower"),
        Measure("shape_told", "its part of shape, told", "lower"),
        Measure("followed_place", "how far a wrong mean is followed (1 all the way)"),
        Measure("followed_spread", "how far a wrong spread is followed (1 all the way)"),
        Measure("valid_mass_untold", "probability of an allowed number, not told", "higher"),
        Measure("valid_mass_told", "probability of an allowed number, told", "higher", answers=True),
    ),
    (VALUES, GAINS, GAPS),
    groups="split",
    kept={"settings": as_it_is},
)
