"""Many draws in one answer: are they draws from the law, and are they exchangeable and independent?

Answers are sampled, so each measure stands beside what a perfect sampler gets from as many draws (``_perfect``). Of an
answer the first draws count, as many as were asked for; that fewer came is a measure of its own. Where nothing
could be read, measures are nan.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from calibnb.benchmarks.sequences import order
from calibnb.benchmarks.sequences.prompts import Request, Shuffle, Target, targets
from calibnb.benchmarks.sequences.reading import Draw, read, read_order
from calibnb.evidence.bands import beside, perfect_sampler_floor
from calibnb.evidence.shuffles import shuffle_measures
from calibnb.laws.distances import normalised_w1
from calibnb.trees.sampling import Ask

SAMPLES = 200  # simulated perfect samplers behind the floor of nW1
OF_DRAWS = ("nw1", "repeats", "runs_z", "lag1", "same_first", "same_list")
MEASURES = ("given", "in_lists", "as_many", *(name + end for name in OF_DRAWS for end in ("", "_perfect")))
OF_SHUFFLES = (
    "valid", "first_tv", "first_tv_perfect", "unchanged", "unchanged_perfect", "inversions", "inversions_perfect",
    "displacement", "displacement_perfect",
)  # fmt: skip
Lists = Sequence[Sequence[Draw]]


@functools.cache
def floor(label: str, draws: int) -> float:
    """The nW1 that so many draws of a perfect sampler get on average, for a law of the table."""
    target = targets()[label]
    return perfect_sampler_floor(target.law, target.low, target.high, draws, SAMPLES, seed=0).mean


@functools.cache
def _cells(label: str, decimals: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return order.cells(targets()[label].law, decimals)


def _mean(values: Sequence[float]) -> float:
    """The mean of those that exist; nan without any."""
    here = [value for value in values if not np.isnan(value)]
    return float(np.mean(here)) if here else float("nan")


def draws_measures(answers: Lists, target: Target, asked: int) -> dict[str, float]:
    """Measures of the draws of several answers to one prompt.

    Parameters
    ----------
    answers : Sequence[Sequence[Draw]]
        What was read of each answer; empty where nothing was.
    target : Target
        The law asked for.
    asked : int
        Draws asked for in each answer.

    Returns
    -------
    dict[str, float]
        ``given`` (draws that came, as a share of those asked for), ``in_lists`` (those of them that came with others in
        one answer), ``as_many`` (share of answers with as many as asked for), ``draws`` (how many count). And each with
        ``_perfect``: ``nw1`` of all draws together; ``repeats`` (share of draws that equal one before in the same
        answer); ``runs_z`` and ``lag1``, means over answers; ``same_first`` and ``same_list``, the shares of pairs of
        answers with an equal first draw, and with equal draws throughout, of at least two. How often draws are expected
        to be equal follows from the law rounded to the decimals that answers have: for repeats to the most of each
        answer, for pairs to those of the median answer, which also has the length.
    """
    lists = [[draw.value for draw in answer[:asked]] for answer in answers if answer]
    count = sum(map(len, lists))
    record = {
        "given": count / (asked * len(answers)),
        "in_lists": sum(len(values) for values in lists if len(values) > 1) / (asked * len(answers)),
        "as_many": sum(len(answer) == asked for answer in answers) / len(answers),
        "draws": float(count),
    }
    if not lists:
        missing = dict.fromkeys(OF_DRAWS, float("nan"))
        return record | beside(missing, missing)
    decimals = [max(draw.decimals for draw in answer[:asked]) for answer in answers if answer]
    laws = [_cells(target.label, min(d, order.FINEST)) for d in decimals]
    pooled = np.concatenate([np.asarray(values) for values in lists])
    many = len(lists) > 1
    # Two answers of as many decimals as is usual here.
    usual = _cells(target.label, min(int(np.median(decimals)), order.FINEST))
    several = [tuple(values) for values in lists if len(values) > 1]  # one number is no list
    measures = {
        "nw1": normalised_w1(pooled, np.ones(count), target.law, target.low, target.high),
        "repeats": sum(map(order.repeats, lists)) / count,
        "runs_z": _mean([order.runs_z(order.halves(values)) for values in lists]),
        "lag1": _mean([order.lag_one(values) for values in lists]),
        "same_first": order.alike([values[0] for values in lists]),
        "same_list": order.alike(several),
    }
    varied = [values for values in lists if len(set(values)) > 1]
    perfect = {
        "nw1": floor(target.label, count),
        "repeats": sum(order.expected_repeats(p, len(values)) for p, values in zip(laws, lists, strict=True)) / count,
        "runs_z": 0.0 if not np.isnan(measures["runs_z"]) else float("nan"),
        "lag1": _mean([-1 / len(values) for values in varied]),
        "same_first": order.collision(usual) if many else float("nan"),
        "same_list": order.collision(usual) ** np.median(list(map(len, several))) if len(several) > 1 else float("nan"),
    }
    return record | beside(measures, perfect)


def displacement(orders: Sequence[Sequence[int]]) -> float:
    """How far an entry is from its place in the given order, on average; nan without any order.

    Parameters
    ----------
    orders : [m, n] ints
        Permutations, each a row of places.
    """
    if not len(orders):
        return float("nan")
    rows = np.array(orders)
    return float(np.abs(rows - np.arange(rows.shape[1])).mean())


def run_draws(
    ask: Ask, requests: Sequence[Request], *, answers: int, tokens_per_draw: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ask for many draws in one answer.

    Parameters
    ----------
    ask : Ask
        Draws answers.
    requests : Sequence[Request]
        The prompts.
    answers : int
        Answers to each.
    tokens_per_draw : int
        The longest answer has so many tokens for each draw that is asked for.

    Returns
    -------
    tuple[DataFrame, DataFrame, DataFrame]
        A row a prompt: ``label, wording, asked, prompt, answers, draws`` and `MEASURES`. A row a prompt and different
        number: ``label, wording, asked, value, count``. A row an answer: ``label, asked, answer, text, read`` (json).
    """
    rows, pooled, texts = [], [], []
    for length in dict.fromkeys(request.asked for request in requests):
        some = [request for request in requests if request.asked == length]
        drawn = ask([request.prompt for request in some], draws=answers, max_new_tokens=tokens_per_draw * length)
        for request, written in zip(some, drawn, strict=True):
            lists = [read(text, request.target.outcomes) for text in written]
            about = {"label": request.target.label, "wording": request.wording, "asked": length}
            found = draws_measures(lists, request.target, length)
            rows.append(about | {"prompt": request.prompt, "answers": answers} | found)
            counts = Counter(draw.value for draws in lists for draw in draws[:length])
            pooled += [about | {"value": float(value), "count": n} for value, n in sorted(counts.items())]
            for number, (text, draws) in enumerate(zip(written, lists, strict=True)):
                answer = {"label": request.target.label, "asked": length, "answer": number, "text": text}
                texts.append(answer | {"read": json.dumps([draw.value for draw in draws])})
    counted = pd.DataFrame(pooled, columns=["label", "wording", "asked", "value", "count"])
    return pd.DataFrame(rows), counted.astype({"value": float, "count": int}), pd.DataFrame(texts)


def run_shuffles(
    ask: Ask, lists: Sequence[Shuffle], *, answers: int, tokens_per_draw: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask for lists in random order.

    Returns
    -------
    tuple[DataFrame, DataFrame]
        A row a list: ``label, prompt, answers, valid`` (the share of answers that are a permutation of it), the
        measures of `shuffle_measures`, and `displacement` over what a uniform permutation has. A row an answer, as of
        `run_draws`, without what was asked.
    """
    rows, texts = [], []
    for size in dict.fromkeys(len(entry.entries) for entry in lists):
        some = [entry for entry in lists if len(entry.entries) == size]
        drawn = ask([entry.prompt for entry in some], draws=answers, max_new_tokens=tokens_per_draw * size)
        for entry, written in zip(some, drawn, strict=True):
            found = [read_order(text, entry.entries) for text in written]
            orders = [places for places in found if places is not None]
            moved = displacement(orders) / ((size**2 - 1) / (3 * size))
            measures = shuffle_measures(orders, size, seed=0) | beside(
                {"displacement": moved}, {"displacement": 1.0 if orders else float("nan")}
            )
            about = {"label": entry.label, "prompt": entry.prompt, "answers": answers}
            rows.append(about | {"valid": len(orders) / answers} | measures)
            for number, (text, places) in enumerate(zip(written, found, strict=True)):
                answer = {"label": entry.label, "answer": number, "text": text}
                texts.append(answer | {"read": json.dumps(places)})
    return pd.DataFrame(rows), pd.DataFrame(texts)
