"""Many draws in one answer: its measures and its claims."""

from __future__ import annotations

from functools import partial

from calibnb.benchmarks.declaration import Benchmark, Measure, as_it_is, without
from calibnb.evidence import verdicts
from calibnb.evidence.claims import Claim, Items, Parquet, Section, Table

TABLE = Table("sequences", Parquet("sequences", "prompts"))
SHUFFLES = Table("sequences", Parquet("sequences", "shuffles"))

# Wordings and lengths of a law are no further laws: what is resampled are the laws.
_draws = partial(
    Claim,
    TABLE,
    Items("label"),
    id="sequences.{variant}.{measure}",
    source="results/sequences/{slug}/{variant}.json#{measure}",
)
DRAWS: Section = (
    _draws(
        "given",
        question="How many of the draws that are asked for in one answer does {variant} give?",
        unit="share of draws asked for, mean over laws",
    ),
    _draws(
        "in_lists",
        question="How many of the draws that are asked for does {variant} give with others in one answer?",
        unit="share of draws asked for, mean over laws",
    ),
    _draws(
        "nw1",
        question="What is the normalised W1 of {variant}'s draws in one answer, all answers together?",
        unit="1 = always the median, mean over laws",
    ),
    _draws(
        "nw1_perfect",
        question="What is the normalised W1 of a perfect sampler with as many draws as {variant} gives?",
        unit="1 = always the median, mean over laws",
    ),
    _draws(
        "repeats",
        question="How many draws of {variant} equal one before in the same answer?",
        unit="share of draws, mean over laws",
    ),
    _draws(
        "runs_z",
        question="How far is the number of runs about the median from that of independent draws, for {variant}?",
        unit="standard deviations, mean over laws",
    ),
    _draws(
        "lag1",
        question="What is the correlation of a draw with the next in answers of {variant}?",
        unit="correlation, mean over laws",
    ),
    _draws(
        "same_list",
        question="How often are two answers of {variant} the same list?",
        unit="share of pairs of answers, mean over laws",
    ),
)
_closer = partial(
    _draws,
    "nw1",
    id="sequences.{variant}.nw1_vs_{against}",
    question="Do many draws in one answer of {variant} follow the law more closely than those of {reference}?",
    claim="many draws in one answer of {variant} have a smaller nW1 than those of {reference}",
    unit="difference of nW1, mean over laws",
    source="results/sequences/{slug}/{variant}/prompts.parquet",
    rule=verdicts.below_zero,
    rare="in_lists",  # one number is no list: where lists are rare, nothing is said of many draws
)
CLOSER: Section = (_closer(of="own", against="base"), _closer(of="own", against="format"))
HARD_OR_SOFT: Section = (_closer(of=("hard",), against="soft"),)

_order = partial(
    Claim,
    SHUFFLES,
    Items("label"),
    id="sequences.shuffles.{variant}.{measure}",
    source="results/sequences/{slug}/{variant}/shuffles.parquet",
)
ORDERS: Section = (
    _order(
        "valid",
        question="How many answers of {variant} to a list that is to be shuffled are a permutation of it?",
        unit="share of answers, mean over lists",
    ),
    _order(
        "first_tv",
        question="How far from uniform is the first entry of lists that {variant} shuffles?",
        unit="total variation, mean over lists",
    ),
    _order(
        "unchanged",
        question="How many lists does {variant} leave in the given order?",
        unit="share of permutations, mean over lists",
    ),
    _order(
        "inversions",
        question="How many pairs of entries does {variant} put the other way round?",
        unit="share of pairs (0.5 expected), mean over lists",
    ),
)

BENCHMARK = Benchmark(
    "sequences",
    "Many draws in one answer",
    TABLE,
    Items("label"),
    (
        Measure("given", "draws that came (share of those asked)", "higher"),
        Measure("in_lists", "draws that came with others (share)", "higher", pictured=True, answers=True),
        Measure("as_many", "answers with as many draws as asked for (share)", "higher"),
        Measure("nw1", "normalised W1 (0 perfect, 1 always the median)", "lower", given="given", pictured=True),
        Measure("nw1_perfect", "normalised W1, perfect sampler", given="given"),
        Measure("repeats", "draws that equal one before (share)", given="given", pictured=True),
        Measure("repeats_perfect", "draws that equal one before, perfect sampler", given="given"),
        Measure("runs_z", "runs about the median (z score)", given="given", pictured=True),
        Measure("runs_z_perfect", "runs about the median, perfect sampler", given="given"),
        Measure("lag1", "correlation with the next draw", given="given", pictured=True),
        Measure("lag1_perfect", "correlation with the next draw, perfect sampler", given="given"),
        Measure("same_first", "answers that begin alike (share of pairs)", given="given", pictured=True),
        Measure("same_first_perfect", "answers that begin alike, perfect sampler", given="given"),
        Measure("same_list", "answers that are one list (share of pairs)", "lower", given="given", pictured=True),
        Measure("same_list_perfect", "answers that are one list, perfect sampler", given="given"),
    ),
    (DRAWS, CLOSER, HARD_OR_SOFT, ORDERS),
    kept={"prompts": without("prompt"), "pooled": as_it_is, "shuffles": without("prompt")},
)
