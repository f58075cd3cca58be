"""Scores with their intervals, by task and over all, and what changed against the base."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from calibnb.benchmarks.capability import arithmetic
from calibnb.benchmarks.capability.bundled import Floats

ALL = "all tasks"


def _scores(frame: pd.DataFrame) -> dict[str, Floats]:
    """Scores ``[items]`` of each task, the mean over training seeds."""
    per_item = frame.groupby(["task", "item"], sort=False)["score"].mean().reset_index()
    return {str(task): part["score"].to_numpy(np.float64) for task, part in per_item.groupby("task", sort=False)}


def _estimates(scores: Mapping[str, Floats], resamples: int, seed: int) -> pd.DataFrame:
    """Means, their standard errors and intervals, from a bootstrap of the items within each task."""
    rng = np.random.default_rng(seed)
    drawn = [x[rng.integers(0, len(x), (resamples, len(x)))].mean(axis=1) for x in scores.values()]
    rows = []
    for task, value, means, count in [
        *((task, x.mean(), m, len(x)) for (task, x), m in zip(scores.items(), drawn, strict=True)),
        (ALL, np.mean([x.mean() for x in scores.values()]), np.mean(drawn, axis=0), sum(map(len, scores.values()))),
    ]:
        low, high = np.quantile(means, [0.025, 0.975])
        rows.append({"task": task, "value": value, "low": low, "high": high, "stderr": means.std(), "items": count})
    return pd.DataFrame(rows)


def summarise(frame: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Mean score of each task and of all tasks, which count alike.

    Parameters
    ----------
    frame : DataFrame
        Frame of :func:`run`, any number of training seeds.
    resamples, seed : int
        Resamples and seed of the bootstrap.

    Returns
    -------
    DataFrame
        Rows ``task, value, low, high, stderr, items``; 95 % intervals from a bootstrap of the items.
    """
    return _estimates(_scores(frame), resamples, seed)


def arithmetic_beside_rest(frame: pd.DataFrame, base: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """What `frame` gains on `base` in tasks of arithmetic, less what it gains in all other tasks.

    Returns
    -------
    DataFrame
        One row ``value, low, high``, paired by question, tasks counting alike; none where one of the two kinds is not
        asked.
    """
    change = _changes(frame, base)
    rng, groups = np.random.default_rng(seed), []
    for among in (True, False):
        parts = [x for task, x in change.items() if (task in arithmetic.TASKS) == among]
        if not parts:
            return pd.DataFrame(columns=["value", "low", "high"])
        drawn = [x[rng.integers(0, len(x), (resamples, len(x)))].mean(axis=1) for x in parts]
        groups.append((np.mean([x.mean() for x in parts]), np.mean(drawn, axis=0)))
    (own, own_drawn), (rest, rest_drawn) = groups
    low, high = np.quantile(own_drawn - rest_drawn, [0.025, 0.975])
    return pd.DataFrame([{"value": own - rest, "low": low, "high": high}])


def _changes(frame: pd.DataFrame, base: pd.DataFrame) -> dict[str, Floats]:
    """What `frame` scores more than `base`, task by task and item by item."""
    own, other = _scores(frame), _scores(base)
    if {task: len(x) for task, x in own.items()} != {task: len(x) for task, x in other.items()}:
        raise ValueError("the two hold different items")
    return {task: x - other[task] for task, x in own.items()}


def compare(frame: pd.DataFrame, base: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """What `frame` scores more than `base`, item by item, as :func:`summarise`."""
    return _estimates(_changes(frame, base), resamples, seed)
