"""The mixing curve: its measures and its claims."""

from __future__ import annotations

from functools import partial

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.benchmarks.mixing.measures import by_kind, by_pair
from calibnb.evidence import verdicts
from calibnb.evidence.claims import Claim, Items, Parquet, Section, Table

TABLE = Table("mixing", Parquet("mixing", "items", prepare=by_pair))
TABLE_OF_KINDS = Table("mixing", Parquet("mixing", "items", prepare=by_kind))

_value = partial(
    Claim,
    TABLE,
    Items("pair"),
    id="mixing.{variant}.{measure}",
    source="results/mixing/{slug}/{variant}.json#{measure}",
)
VALUES: Section = (
    _value(
        "slope",
        question="By how much does what {variant} says follow the probability that is asked for?",
        unit="slope of said on asked, mean over pairs of words",
    ),
    _value(
        "error",
        question="How far is what {variant} says from the probability that is asked for?",
        unit="mean absolute error of a probability, mean over pairs of words",
    ),
    _value(
        "divergence",
        question="How much worse than the law asked for does that of {variant} predict draws from it?",
        unit="nats, mean over pairs of words",
    ),
    _value(
        "either",
        question="How often does {variant} say one of the two words?",
        unit="probability, mean over pairs of words",
    ),
)
_held_against = partial(
    _value,
    id="mixing.{variant}.{measure}_vs_{against}",
    source="results/mixing/{slug}/{variant}/items.parquet",
    rare="either",
)
_closer = partial(
    _held_against,
    "error",
    question="Does {variant} mix two words more nearly as asked than {reference}?",
    claim="{variant} mixes two words more nearly as asked than {reference}",
    unit="difference of mean absolute errors",
    rule=verdicts.below_zero,
)
GAINS: Section = (
    _closer(of="own", against="base"),
    _closer(of="own", against="format"),
    _held_against(
        "slope",
        of="own",
        against="base",
        question="Does what {variant} says follow the probability asked for more than that of {reference}?",
        claim="what {variant} says follows the probability asked for more than that of {reference}",
        unit="difference of slopes",
        rule=verdicts.above_zero,
    ),
)
HARD_OR_SOFT: Section = (_closer(of=("hard",), against="soft"),)
CARRIED: Section = (
    Claim(
        TABLE_OF_KINDS,
        Items("pair"),
        "slope",
        groups="seen",
        of=("paired",),
        against="base",
        id="mixing.{variant}.{seen}.slope_vs_{against}",
        question="Of words and wording, {variant} saw {seen}: does it follow what is asked more than {reference}?",
        claim="where {variant} saw {seen} in training, it follows the probability asked for more than {reference}",
        unit="difference of slopes",
        source="results/mixing/{slug}/{variant}/items.parquet",
        rule=verdicts.above_zero,
        rare="either",
    ),
)

BENCHMARK = Benchmark(
    "mixing",
    "The mixing curve",
    TABLE,
    Items("pair"),
    (
        Measure("slope", "slope of said on asked (1 = as asked)", given="either"),
        Measure("error", "mean absolute error of a probability", "lower", given="either"),
        Measure("divergence", "KL(asked || said), nats", "lower", given="either"),
        Measure("first_gain", "gain of the word named first (probability)", given="either"),
        Measure("either", "probability of one of the two words", "higher", answers=True),
    ),
    (VALUES, GAINS, HARD_OR_SOFT, CARRIED),
    kept={"items": as_it_is},
)
