"""The study's claims and measurements, a row each: what a row says stands in :mod:`calibnb.evidence.claims`."""

from __future__ import annotations

from functools import partial

from calibnb.benchmarks import tables
from calibnb.evidence import verdicts
from calibnb.evidence.claims import Chapter, Claim, Items, Section, Table, as_stated

# Numbers

_number = partial(
    Claim,
    tables.STRUCTURED,
    tables.on_numbers,
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
_against_format = partial(
    _number,
    of="own",
    against="format",
    unit="ratio of family medians",
    source="results/structured/{slug}/{variant}.parquet",
    rule=verdicts.below_one,
)
AGAINST_FORMAT: Section = (
    _against_format(
        "nw1",
        id="structured.{key}.{variant}.w1_vs_format",
        question="Does {variant} draw more faithfully than {reference} {where}?",
        claim="{variant} lowers nW1 {where}, against {reference}",
        determined=True,
    ),
    _against_format(
        "kl_shape",
        id="structured.{key}.{variant}.shape_vs_format",
        question="Does {variant} have a smaller KL of the shape than {reference} {where}?",
        claim="{variant} lowers the KL of the shape {where}, against {reference}",
    ),
    _against_format(
        "total_variation",
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
        source="results/structured/{slug}/{variant}.parquet",
        rule=verdicts.below_one,
        determined=True,
    ),
)

# Randomness that is not numeric

_answer = partial(
    Claim,
    tables.OPENENDED,
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
_more_answers = partial(
    _answer,
    of="own",
    against="controls",
    source="results/openended/{slug}/{variant}.parquet",
    rule=verdicts.above_zero,
)
MORE_ANSWERS: Section = (
    _more_answers(
        "unique_fraction_folded",
        id="openended.{variant}.unique_vs_{against}",
        question="Does {variant} answer open-ended prompts with more variety than {reference}?",
        claim="{variant} answers with more variety than {reference}",
        unit="difference of the shares of unique answers",
        alike="numbers",
    ),
    _more_answers(
        "valid_unique_fraction",
        id="openended.{variant}.members_vs_{against}",
        question="Does {variant} name more members of closed categories than {reference}?",
        claim="{variant} names more different members of closed categories than {reference}",
        unit="difference of the shares of what as many draws could name",
        rare="member_mass",
    ),
)
_position = partial(
    Claim,
    tables.POSITIONS,
    as_stated,
    id="positions.{variant}.{measure}",
    source="results/positions/{slug}/{variant}.json#{measure}",
)
POSITIONS: Section = (
    _position(
        "parse",
        question="What is the share of multiple-choice questions that can be read of {variant}?",
        unit="share of texts",
    ),
    _position(
        "exact_total_variation",
        question="What is the distance of answer positions from uniform of {variant}?",
        unit="total variation, exact",
    ),
)
_novelty = partial(
    Claim,
    tables.NOVELTY,
    tables.novel,
    id="novelty.{variant}.{measure}",
    source="results/novelty/{slug}/{variant}.json#{measure}",
)
NOVELTY: Section = (
    _novelty(
        "distinct",
        question="How many different answers does {variant} give to a prompt with many right ones?",
        unit="answers of {generations}",
    ),
    _novelty(
        "numbers",
        question="How often does {variant} answer such a prompt with a bare number?",
        unit="share of answers",
    ),
)
MORE_NOVELTY: Section = (
    _novelty(
        "distinct",
        of="own",
        against="controls",
        id="novelty.{variant}.distinct_vs_{against}",
        question="Does {variant} give more different answers than {reference}?",
        claim="{variant} gives more different answers to a prompt than {reference}",
        unit="difference in answers",
        source="results/novelty/{slug}/{variant}.parquet",
        rule=verdicts.above_zero,
        alike="numbers",
    ),
)

# Randomness asked for in ordinary language


def _in_language(table: Table, kind: str, error: str, item: str) -> tuple[Section, Section]:
    """Values and comparisons of the suites in a table.

    Args:
        kind: ends the names of the table's files.
        error: the measure, 1 for the best constant answer.
        item: column of what is resampled.
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
    closer = row(
        error,
        of="own",
        against="controls",
        id="language.{suite}.{variant}.error_vs_{against}",
        question="Is {variant} closer to the stated law than {reference} on {suite}?",
        claim="{variant} has a smaller error on {suite} than {reference}",
        unit="difference of errors, 1 = the best constant answer",
        source=f"results/language/{{slug}}/{{variant}}-{kind}.parquet",
        rule=verdicts.below_zero,
        rare="valid_mass",
    )
    return values, (closer,)


LANGUAGE: Chapter = (
    *_in_language(tables.ENUMERATED, "exact", "normalised_tv", "id"),
    *_in_language(tables.PARAPHRASES, "paraphrases", "nw1", "label"),
)

# Other ways of asking, without training

_way = partial(
    Claim,
    tables.WAYS,
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

# What it costs elsewhere

_able = partial(
    Claim,
    tables.CAPABILITY,
    tables.right_answers,
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
        source="results/capability/{slug}/{variant}.parquet",
        rule=verdicts.below_zero,
    ),
)
_text = partial(
    Claim,
    tables.PERPLEXITY,
    tables.length_of_text,
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
        source="results/perplexity/{slug}/{variant}.parquet",
        rule=verdicts.above_zero,
    ),
)
_mixed = partial(
    Claim,
    tables.TRADEOFF,
    as_stated,
    source="results/tradeoff.csv#{variant}",
)
TRADEOFF: Section = (
    _mixed(
        "capability",
        id="tradeoff.{variant}.capability",
        question="Do ordinary examples keep capability: {variant} against {against}?",
        claim="{variant} answers more questions right than {against}",
        unit="difference of the shares of right answers",
        rule=verdicts.above_zero,
    ),
    _mixed(
        "w1",
        id="tradeoff.{variant}.{key}.w1",
        question="What do ordinary examples change in the fidelity of {variant} {where}, against {against}?",
        unit="ratio of family medians of nW1",
    ),
)

# The study itself

TRAINING: Section = (
    Claim(
        tables.TRAINING,
        tables.over_seeds,
        "validation_loss",
        id="finetune.{variant}.validation_loss",
        question="What is the lowest validation loss of {variant}?",
        unit="nats per answer, range over seeds",
        source="results/finetune/{slug}/{variant}/seed-{first}.json#validation_loss",
    ),
)
SAMPLING: Section = (
    Claim(
        tables.SAMPLED,
        tables.inside_the_band,
        "agreement",
        id="structured.sampled.agreement",
        question="How many sampled values lie in the 95 % band that the exact law implies?",
        unit="share of {drawn}",
        source="results/structured/{slug}",
    ),
)

CHAPTERS: tuple[Chapter, ...] = (
    (NUMBERS, AGAINST_FORMAT, HARD_OR_SOFT),
    (ANSWERS, MORE_ANSWERS),
    (POSITIONS, NOVELTY, MORE_NOVELTY),
    LANGUAGE,
    (WAYS,),
    (CAPABILITY, PERPLEXITY, TRADEOFF),
    (TRAINING, SAMPLING),
)
