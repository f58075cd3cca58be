"""Sampled measures of draws and shuffles, beside what a perfect sampler gets with as many."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from calibnb.benchmarks.language.enumerated import choice_measures, table_of
from calibnb.benchmarks.language.reading import OUTSIDE, read_draws, read_shuffle
from calibnb.benchmarks.language.suites import (
    REPEATS,
    SAMPLED_COLUMNS,
    TEXT_COLUMNS,
    Choice,
    Draws,
    Item,
    Shuffle,
    numbers_of,
    target,
)
from calibnb.laws import distances as laws_distances
from calibnb.trees.sampling import Ask
from calibnb.trees.trie import Floats, Ints


def perfect_tv(p: Floats, n: int) -> float:
    """Expected total variation between a law and the frequencies of ``n`` independent draws from it.

    Half the sum of the mean absolute deviations of binomial counts over n; by De Moivre's identity E|X - np| =
    2 m (1 - p) P(X = m) with m = floor(np) + 1 (Diaconis and Zabell, *Statistical Science* 6, 1991).

    Parameters
    ----------
    p : [k] float array
        Probabilities.
    n : int
        Draws; nan for none.
    """
    if n == 0:
        return float("nan")
    m = np.floor(n * p) + 1
    return float((m * (1 - p) * stats.binom.pmf(m, n, p)).sum() / n)


def inversions(order: Sequence[int]) -> int:
    """How many pairs of a permutation stand in the opposite order; 0 for 0, 1, 2, ..."""
    return sum(a > b for a, b in itertools.combinations(order, 2))


def inversions_law(n: int) -> Floats:
    """``[n (n - 1) / 2 + 1]`` law of the inversions of a uniform permutation of n.

    Independent uniform numbers on 0, ..., j - 1 for j = 1, ..., n add up to it (Knuth, *The Art of Computer
    Programming* 3, section 5.1.1).
    """
    law = np.ones(1)
    for j in range(2, n + 1):
        law = np.convolve(law, np.full(j, 1 / j))
    return law


def position_deviation(orders: Ints) -> float:
    """Largest deviation from 1/n in the matrix of how often each entry stands at each position.

    Parameters
    ----------
    orders : [m, n] int array
        Permutations, each a row of places.
    """
    n = orders.shape[1]
    shares = (orders[:, :, None] == np.arange(n)).mean(axis=0)  # [position, entry]
    return float(np.abs(shares - 1 / n).max())


@functools.cache
def perfect_position_deviation(n: int, m: int, seed: int) -> float:
    """Expected `position_deviation` of ``m`` independent uniform permutations of n, from 1,000 simulations."""
    if m == 0:
        return float("nan")
    rng = np.random.default_rng([seed, n, m])
    plain = np.tile(np.arange(n), (m, 1))
    return float(np.mean([position_deviation(rng.permuted(plain, axis=1)) for _ in range(REPEATS)]))


def draws_measures(lists: Sequence[Sequence[int]], p: Floats) -> dict[str, float]:
    """Measures of answers that count, each a list of draws of one length (at least 2); all nan without any.

    Returns
    -------
    dict[str, float]
        ``pooled_tv`` (total variation of all draws together), ``within_tv`` (of the draws of one answer, averaged over
        answers), each with ``_perfect``, what independent draws are expected to get, and ``_ratio`` of the two: below 1
        for `within_tv` means that answers are more even than chance. ``repeats``, the share of draws that equal the one
        before, with ``repeats_perfect``, the sum of squared probabilities.
    """
    names = ("pooled_tv", "within_tv", "repeats")
    if not len(lists):
        measures = dict.fromkeys(names, float("nan"))
        return _beside(measures, dict.fromkeys(names, float("nan")), ratios=names[:2])
    values = np.array(lists)  # [answers, draws]
    counts = np.stack([(values == k).sum(axis=1) for k in range(len(p))], axis=1)  # [answers, k]
    measures = {
        "pooled_tv": laws_distances.total_variation(counts.sum(axis=0) / values.size, p),
        "within_tv": float(np.abs(counts / values.shape[1] - p).sum(axis=1).mean() / 2),
        "repeats": float((values[:, 1:] == values[:, :-1]).mean()),
    }
    perfect = {
        "pooled_tv": perfect_tv(p, values.size),
        "within_tv": perfect_tv(p, values.shape[1]),
        "repeats": float(p @ p),
    }
    return _beside(measures, perfect, ratios=names[:2])


def shuffle_measures(orders: Sequence[Sequence[int]], n: int, *, seed: int) -> dict[str, float]:
    """Measures of permutations of ``n`` entries; all nan without any.

    Parameters
    ----------
    orders : Sequence[Sequence[int]]
        One row of places an answer, places counted in the order of the prompt.
    n : int
        Number of entries.
    seed : int
        Seed of the simulation behind one expectation.

    Returns
    -------
    dict[str, float]
        ``first_tv`` (total variation of the first entry from uniform), ``position_deviation``, ``inversions_tv`` (of
        the number of inversions from its law), each with ``_perfect``, what as many uniform permutations are expected
        to get, and ``_ratio``; ``inversions``, their mean as a share of n (n - 1) / 2, and ``unchanged``, the share of
        answers in the order of the prompt, each with ``_perfect``.
    """
    m, distances = len(orders), ("first_tv", "position_deviation", "inversions_tv")
    if not m:
        measures = dict.fromkeys((*distances, "inversions", "unchanged"), float("nan"))
        return _beside(measures, dict(measures), ratios=distances)
    rows = np.array(orders, np.int64).reshape(m, n)
    turned, law, pairs = np.array([inversions(row) for row in rows.tolist()]), inversions_law(n), n * (n - 1) // 2
    even = np.full(n, 1 / n)
    measures = {
        "first_tv": laws_distances.total_variation(np.bincount(rows[:, 0], minlength=n) / m, even),
        "position_deviation": position_deviation(rows),
        "inversions_tv": laws_distances.total_variation(np.bincount(turned, minlength=len(law)) / m, law),
        "inversions": float(turned.mean()) / pairs,
        "unchanged": float((turned == 0).mean()),
    }
    perfect = {
        "first_tv": perfect_tv(even, m),
        "position_deviation": perfect_position_deviation(n, m, seed),
        "inversions_tv": perfect_tv(law, m),
        "inversions": 0.5,
        "unchanged": float(law[0]),
    }
    return _beside(measures, perfect, ratios=distances)


def _beside(measures: dict[str, float], perfect: dict[str, float], ratios: Sequence[str]) -> dict[str, float]:
    """Each measure, what a perfect sampler gets, and for some their ratio."""
    row: dict[str, float] = {}
    for name, value in measures.items():
        row |= {name: value, f"{name}_perfect": perfect[name]}
        if name in ratios:
            row[f"{name}_ratio"] = value / perfect[name]
    return row


def run_choices(ask: Ask, items: Sequence[Item], *, answers: int, max_new_tokens: int) -> pd.DataFrame:
    """Sample and measure the items of the closed suites, where an `ask` that goes another way hides the probabilities.

    Parameters
    ----------
    ask : Ask
        Draws answers.
    items : Sequence[Item]
        Those to measure, of any suite.
    answers : int
        How many for each item.
    max_new_tokens : int
        Longest answer.

    Returns
    -------
    DataFrame
        A row an item: ``suite, id, prompt`` and the measures of `choice_measures`, as of `run_exact`, with shares of
        answers for probabilities. Distances are biased upwards, the more the fewer answers are valid.
    """
    chosen = [item for item in items if isinstance(item, Choice)]
    rows = []
    drawn = ask([item.prompt for item in chosen], draws=answers, max_new_tokens=max_new_tokens) if chosen else []
    for item, written in zip(chosen, drawn, strict=True):
        place = {form: k for k, answer in enumerate(item.answers) for form in answer.spellings}
        read = [place[text.strip()] for text in written if text.strip() in place]
        with np.errstate(divide="ignore"):  # an answer that was not given has probability 0
            log_shares = np.log(np.bincount(read, minlength=len(item.answers)) / answers)
        measures = choice_measures(log_shares, target(item.answers), numbers_of(item.answers))
        rows.append({"suite": item.suite, "id": item.id, "prompt": item.prompt} | measures)
    return table_of(rows, ("suite", "id", "prompt", "valid_mass", "normalised_tv"))


def run_sampled(
    ask: Ask, items: Sequence[Item], *, answers: int, max_new_tokens: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sample and measure the items of `draws` and `shuffles`; others are left out.

    Parameters
    ----------
    ask : Ask
        Draws answers.
    items : Sequence[Item]
        Those to measure, of any suite.
    answers : int
        How many for each item.
    max_new_tokens : int
        Longest answer.
    seed : int
        Seed of the simulation behind one expectation; sampling has its own.

    Returns
    -------
    tuple[DataFrame, DataFrame]
        A row an item: ``suite, id, prompt, asked`` (draws in an answer, or entries), ``answers``, ``valid`` (share of
        answers that count), ``at_least_half`` (share with at least half the draws asked for, all admissible; nan for
        shuffles), and the measures of `draws_measures` and `shuffle_measures` on the answers that count, nan where they
        are the other suite's. Then a row an answer: ``suite, id, answer`` (its number), ``text, valid, reason`` (empty
        where valid).
    """
    chosen = [item for item in items if isinstance(item, Draws | Shuffle)]
    rows, texts = [], []
    drawn = ask([item.prompt for item in chosen], draws=answers, max_new_tokens=max_new_tokens) if chosen else []
    for item, written in zip(chosen, drawn, strict=True):
        if isinstance(item, Draws):
            asked = item.draws
            readings = [read_draws(text, item) for text in written]
            lists = [reading.values for reading in readings if not reading.reason]
            measures = draws_measures(lists, target(item.answers))
            enough = [2 * len(r.values) >= asked and OUTSIDE not in r.values for r in readings]
            half = sum(enough) / len(written)
        else:
            asked = len(item.entries)
            readings = [read_shuffle(text, item) for text in written]
            lists = [reading.values for reading in readings if not reading.reason]
            measures = shuffle_measures(lists, asked, seed=seed)
            half = float("nan")
        about = {"suite": item.suite, "id": item.id, "prompt": item.prompt, "asked": asked, "answers": len(written)}
        rows.append(about | {"valid": len(lists) / len(written), "at_least_half": half} | measures)
        for number, (text, reading) in enumerate(zip(written, readings, strict=True)):
            row = {"suite": item.suite, "id": item.id, "answer": number, "text": text}
            texts.append(row | {"valid": not reading.reason, "reason": reading.reason})
    return table_of(rows, SAMPLED_COLUMNS), table_of(texts, TEXT_COLUMNS)
