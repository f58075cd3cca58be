"""Sampled measures of draws and shuffles, beside what a perfect sampler gets with as many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from calibnb.benchmarks.language.enumerated import choice_measures, table_of
from calibnb.benchmarks.language.reading import OUTSIDE, read_draws, read_shuffle
from calibnb.benchmarks.language.suites import (
    SAMPLED_COLUMNS,
    TEXT_COLUMNS,
    Choice,
    Draws,
    Item,
    Shuffle,
    numbers_of,
    target,
)
from calibnb.evidence.bands import beside, perfect_tv
from calibnb.evidence.shuffles import shuffle_measures
from calibnb.laws import distances
from calibnb.trees.sampling import Ask
from calibnb.trees.trie import Floats


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
        return beside(measures, dict.fromkeys(names, float("nan")), ratios=names[:2])
    values = np.array(lists)  # [answers, draws]
    counts = np.stack([(values == k).sum(axis=1) for k in range(len(p))], axis=1)  # [answers, k]
    measures = {
        "pooled_tv": distances.total_variation(counts.sum(axis=0) / values.size, p),
        "within_tv": float(np.abs(counts / values.shape[1] - p).sum(axis=1).mean() / 2),
        "repeats": float((values[:, 1:] == values[:, :-1]).mean()),
    }
    perfect = {
        "pooled_tv": perfect_tv(p, values.size),
        "within_tv": perfect_tv(p, values.shape[1]),
        "repeats": float(p @ p),
    }
    return beside(measures, perfect, ratios=names[:2])


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
