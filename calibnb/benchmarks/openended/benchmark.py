"""Open-ended generation: its measures and its claims."""

from __future__ import annotations

from functools import partial

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is
from calibnb.evidence import verdicts
from calibnb.evidence.claims import Claim, Items, Parquet, Section, Table

TABLE = Table("openended", Parquet("openended", "categories"))

_answer = partial(
    Claim,
    TABLE,
    Items("category"),
    id="openended.{variant}.{measure}",
    source="results/openended/{slug}/{variant}.json#{measure}",
)
ANSWERS: Section = (
    _answer(
        "unique_fraction_folded",
        question="What is the share of unique answers of {variant}?",
        unit="share of draws, mean over categories",
    ),
    _answer(
        "support_0.90",
        question="What is the number of first tokens that carry 90 % of {variant}?",
        unit="tokens, mean over categories",
    ),
    _answer(
        "numbers",
        question="What is the share of answers that are a bare number of {variant}?",
        unit="share of draws, mean over categories",
    ),
    _answer(
        "member_mass",
        question="What is the probability of a member of a closed category of {variant}?",
        unit="probability, mean over categories",
    ),
    _answer(
        "uniform_tv",
        question="What is the distance from uniform over members of {variant}?",
        unit="total variation, mean over categories",
    ),
)
_unique = partial(
    _answer,
    "unique_fraction_folded",
    id="openended.{variant}.unique_vs_{against}",
    question="Does {variant} answer open-ended prompts with more variety than {reference}?",
    claim="{variant} answers with more variety than {reference}",
    unit="difference of the shares of unique answers",
    source="results/openended/{slug}/{variant}/categories.parquet",
    rule=verdicts.above_zero,
    alike="numbers",
)
_members = partial(
    _answer,
    "valid_unique_fraction",
    id="openended.{variant}.members_vs_{against}",
    question="Does {variant} name more members of closed categories than {reference}?",
    claim="{variant} names more different members of closed categories than {reference}",
    unit="difference of the shares of what as many draws could name",
    source="results/openended/{slug}/{variant}/categories.parquet",
    rule=verdicts.above_zero,
    rare="member_mass",
)
MORE_ANSWERS: Section = (_unique(of="own", against="controls"), _members(of="own", against="controls"))
HARD_OR_SOFT: Section = (_unique(of=("hard",), against="soft"), _members(of=("hard",), against="soft"))

BENCHMARK = Benchmark(
    "openended",
    "Open-ended generation",
    TABLE,
    Items("category"),
    (
        Measure("unique_fraction_folded", "unique answers (share)", pictured=True),
        Measure("member_mass", "probability of a member", "higher", pictured=True, answers=True),
        Measure("uniform_tv", "total variation from uniform", "lower", given="member_mass", pictured=True),
        Measure("numbers", "bare numbers (share of answers)", "lower", pictured=True),
        Measure("entropy", "entropy of the first token (nats)"),
        Measure("effective_support", "effective number of first tokens"),
        Measure("support_0.50", "first tokens for half of the probability"),
        Measure("support_0.90", "first tokens for 90 % of the probability"),
        Measure("unique_fraction", "unique answers as written (share)"),
        Measure("empty", "empty answers", "lower"),
        Measure("top_share", "share of the commonest answer"),
        Measure("valid_share", "members among the answers (share)", "higher"),
        Measure("valid_unique_fraction", "members named, of as many as draws could name", "higher"),
    ),
    (ANSWERS, MORE_ANSWERS, HARD_OR_SOFT),
    kept={"categories": as_it_is, "coverage": as_it_is},
)
