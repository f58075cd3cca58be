"""What of a distance is place and scale, and what is shape: the best affine map of answers onto a target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize

from calibnb.laws.distances import Floats, Law, clipped_scale, w1_clipped

_LEVELS = (np.arange(1024) + 0.5) / 1024  # of probability, at which quantiles of answers and target are paired


def best_map(values: npt.ArrayLike, masses: npt.ArrayLike, law: Law, low: float, high: float) -> tuple[float, float]:
    """``(a, b)`` with ``b >= 0``, for which ``a + b * values`` is nearest to the target in Wasserstein-1 distance.

    On a line W1 is the mean absolute difference of quantiles, so ``a`` and ``b`` are a regression of the target's
    quantiles on those of the answers by least absolute deviations. Given ``b``, the best ``a`` is a median; what is
    left is convex in ``b`` alone. Quantiles are paired at 1,024 levels.

    Parameters
    ----------
    values, masses : [n] array-like
        An answer law; masses are normalised here.
    law : Law
        Frozen scipy law of the target.
    low, high : float
        Both are clipped to this range before the map, as nW1 does.
    """
    order = np.argsort(np.asarray(values, np.float64), kind="stable")
    x, w = np.asarray(values, np.float64)[order], np.asarray(masses, np.float64)[order]
    reached = np.cumsum(w) / w.sum()
    answers = np.clip(x[np.minimum(np.searchsorted(reached, _LEVELS), len(x) - 1)], low, high)
    target = np.clip(law.ppf(_LEVELS), low, high)

    def left(b: float) -> float:
        rest = target - b * answers
        return float(np.abs(rest - np.median(rest)).mean())

    spread = float(np.ptp(answers))
    if spread == 0:
        return float(np.median(target)) - float(answers[0]), 1.0
    # No slope beyond twice that of the whole ranges can be best but for a few far answers, which the median ignores.
    most = 2 * (high - low) / max(float(np.mean(np.abs(answers - np.median(answers)))), 1e-9 * spread)
    found = optimize.minimize_scalar(left, bounds=(0.0, most), method="bounded", options={"xatol": 1e-6 * most})
    b = float(found.x)
    return float(np.median(target - b * answers)), b


def nw1_parts(values: npt.ArrayLike, masses: npt.ArrayLike, law: Law, low: float, high: float) -> tuple[float, float]:
    """nW1 in two parts: what the best affine map of the answers takes away, place and scale, and what it leaves, shape.

    Parameters
    ----------
    values, masses, law, low, high
        As for :func:`best_map`.

    Returns
    -------
    tuple[float, float]
        Place and scale, and shape, both at least 0; their sum is nW1. A model that always gives one answer has a shape
        of 1, whichever answer it is.
    """
    scale = clipped_scale(law, low, high)
    x = np.clip(np.asarray(values, np.float64), low, high)
    whole = w1_clipped(x, masses, law, low, high) / scale
    a, b = best_map(x, masses, law, low, high)
    shape = min(whole, _mapped_distance(a + b * x, masses, law, low, high) / scale)
    return whole - shape, shape


def _mapped_distance(values: Floats, masses: npt.ArrayLike, law: Law, low: float, high: float) -> float:
    """W1 between answers that may lie anywhere and the clipped target: what lies beyond an end has its way back to go.

    Answers are not clipped again after the map: clipping would bend a law into shape.
    """
    w = np.asarray(masses, np.float64)
    beyond = np.maximum(low - values, 0) + np.maximum(values - high, 0)
    return w1_clipped(values, w, law, low, high) + float(w @ beyond / w.sum())


def moved(here: tuple[Floats, Floats], there: tuple[Floats, Floats], reach: tuple[float, float]) -> tuple[float, float]:
    """How far the median of one answer law lies from another's, and how many times as wide it is.

    Parameters
    ----------
    here, there : tuple[[n] array, [n] array]
        Values and masses of the two laws.
    reach : tuple[float, float]
        Answers are clipped to this range, so that one absurd answer does not decide.

    Returns
    -------
    tuple[float, float]
        Median of `there` less that of `here`, in the unit of the values; ratio of the mean absolute deviations from
        the median (nan where the first is 0).
    """
    (first, narrow), (second, wide) = (_place_and_width(*law, reach) for law in (here, there))
    return second - first, wide / narrow if narrow > 0 else float("nan")


def _place_and_width(values: Floats, masses: Floats, reach: tuple[float, float]) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    x, w = np.clip(values[order], *reach), masses[order] / masses.sum()
    median = float(x[np.searchsorted(np.cumsum(w), 0.5)])
    return median, float(w @ np.abs(x - median))
