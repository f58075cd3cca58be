"""Aggregates over families, their uncertainty, and what a perfect sampler would score.

A **family median** is the median over families of the mean over a family's settings: families weigh equally
however many settings they have, and no single heavy-tailed family decides the headline. Its interval is a
hierarchical percentile bootstrap (Davison and Hinkley, *Bootstrap Methods and their Application*, 1997,
section 3.8): families are drawn again with replacement, then settings within each drawn family. It speaks
about other families and settings of the same kind, not about other training seeds. Where a family has one
setting, only families vary; with six held-out families the interval is coarse and should be read so.

A value that does not exist (nan: no number was ever written) is left out of its family's mean, a family with
no value is left out of the median. ``missing`` counts them, so that nothing is dropped in silence. Infinities
stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from calibnb.laws.distances import Floats

# Resamples are drawn in blocks of about so many items: fast, since they stay in a core's cache, and of little memory.
_CELLS = 1 << 15


class Estimate(NamedTuple):
    """A value and its 95 % interval, in the unit of the value."""

    value: float
    low: float
    high: float


def missing(values: npt.ArrayLike) -> int:
    """How many values do not exist (nan)."""
    return int(np.isnan(np.asarray(values, np.float64)).sum())


def family_means(families: Sequence[str], values: npt.ArrayLike) -> dict[str, float]:
    """Mean of the values of each family, in alphabetical order; nan for a family that has none."""
    x = np.asarray(values, np.float64)
    names, group = np.unique(np.asarray(families), return_inverse=True)
    here = ~np.isnan(x)
    count = np.bincount(group[here], minlength=len(names))
    total = np.bincount(group[here], x[here], minlength=len(names))
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return dict(zip(names.tolist(), means.tolist(), strict=True))


def family_median(families: Sequence[str], values: npt.ArrayLike) -> float:
    """Median over families of the mean over each family's settings; nan if there is no value at all."""
    means = np.asarray(list(family_means(families, values).values()))
    means = means[~np.isnan(means)]
    return float(np.median(means)) if len(means) else float("nan")


def _resampled_medians(families: npt.NDArray[np.str_], columns: Floats, resamples: int, seed: int) -> Floats:
    """Family medians of every column on the same resamples.

    Parameters
    ----------
    families : [n] str array
        Labels.
    columns : [c, n] float array
        Values without nan.
    resamples, seed : int
        Resamples and seed of the bootstrap.

    Returns
    -------
    [c, resamples] float array
    """
    names, group = np.unique(families, return_inverse=True)
    size = np.bincount(group)
    k, widest = len(names), int(size.max())
    # Settings in a table with a row a family, so that a resample is two gathers.
    table = np.zeros((k, widest), np.int64)
    order = np.argsort(group, kind="stable")
    slot = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    table[group[order], slot] = order
    rng = np.random.default_rng(seed)
    drawn = rng.integers(k, size=(resamples, k))
    within = (rng.random((resamples, k, widest)) * size[drawn][..., None]).astype(np.int64)
    used = np.arange(widest) < size[drawn][..., None]
    setting = table[drawn[..., None], within]  # [resamples, k, widest]
    means = [np.where(used, column[setting], 0.0).sum(axis=-1) / size[drawn] for column in columns]
    return np.stack([np.median(mean, axis=-1) for mean in means])


def percentiles(sample: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(sample, [(1 - level) / 2, (1 + level) / 2], method="closest_observation")
    return float(low), float(high)


def family_median_interval(
    families: Sequence[str],
    values: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Family median with its hierarchical bootstrap interval.

    Parameters
    ----------
    families : Sequence[str]
        ``[n]`` family of each setting.
    values : [n] array-like
        Measure of each setting; nan is left out.
    resamples, seed : int
        Resamples and seed of the bootstrap; the same arguments give the same interval.
    level : float
        Coverage aimed at.

    Returns
    -------
    Estimate
        The estimate; all nan if no value exists.
    """
    x, names = np.asarray(values, np.float64), np.asarray(families)
    here = ~np.isnan(x)
    if not here.any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    sample = _resampled_medians(names[here], x[None, here], resamples, seed)[0]
    return Estimate(family_median(families, values), *percentiles(sample, level))


def family_median_ratio(
    families: Sequence[str],
    numerator: npt.ArrayLike,
    denominator: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Ratio of the family medians of two variants measured on the same settings, with a paired interval.

    Both medians are taken on the same resample, so what makes a family hard for both cancels. A setting that
    lacks a value in either is left out of both.
    """
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    names = np.asarray(families)
    here = ~np.isnan(top) & ~np.isnan(bottom)
    if not here.any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    pair = np.stack([top[here], bottom[here]])
    sample = _resampled_medians(names[here], pair, resamples, seed)
    value = family_median(names[here].tolist(), pair[0]) / family_median(names[here].tolist(), pair[1])
    return Estimate(value, *percentiles(sample[0] / sample[1], level))


def mean_interval(values: npt.ArrayLike, *, resamples: int, seed: int, level: float = 0.95) -> Estimate:
    """Mean over items (prompts, questions) with the percentile bootstrap interval over items.

    Parameters
    ----------
    values : [n] array-like
        nan is left out.
    resamples, seed : int
        Resamples and seed of the bootstrap.
    level : float
        Coverage aimed at.

    Returns
    -------
    Estimate
        The estimate; all nan if no value exists, without an interval if only one does.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    if len(x) < 2:
        return Estimate(float(x[0]) if len(x) else float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // len(x))
    drawn = (min(at_once, resamples - i) for i in range(0, resamples, at_once))
    means = np.concatenate([x[rng.integers(0, len(x), (some, len(x)))].mean(axis=1) for some in drawn])
    return Estimate(float(x.mean()), *percentiles(means, level))


def summarise_items(
    frame: pd.DataFrame, measures: Sequence[str], *, item: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Mean of each measure over items: rows ``measure, value, low, high, items, missing``.

    Parameters
    ----------
    frame : DataFrame
        A row an item and training seed; the mean over seeds is taken first, so items stay the units.
    measures : Sequence[str]
        Columns to average.
    item : str
        Column of what is resampled.
    resamples, seed : int
        Resamples and seed of the bootstrap.
    """
    per_item = frame.groupby(item, sort=False)[list(measures)].mean()
    rows = []
    for measure in measures:
        estimate = mean_interval(per_item[measure], resamples=resamples, seed=seed)
        rows.append(
            {"measure": measure} | estimate._asdict() | {"items": len(per_item), "missing": missing(per_item[measure])}
        )
    return pd.DataFrame(rows)


def compare_items(
    frame: pd.DataFrame, other: pd.DataFrame, measures: Sequence[str], *, item: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Mean paired difference ``frame - other`` over items, as :func:`summarise_items`."""
    a, b = (f.groupby(item, sort=False)[list(measures)].mean() for f in (frame, other))
    return summarise_items((a - b).reset_index(), measures, item=item, resamples=resamples, seed=seed)


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson, 1927); ``(0, 1)`` for no trial."""
    if n == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
