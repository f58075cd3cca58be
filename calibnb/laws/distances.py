"""Distances between what a model answers and what it was asked to draw from.

An answer law is a pair of arrays, ``values`` and ``masses``: the numbers and how much probability (or how
many draws) each has. A target is a frozen ``scipy.stats`` law. Everything here is a pure function of those.

Three decisions hold for the whole study:

- **W1 is read given a number.** The masses of all numbers that were written are normalised, those outside the
  support included: 11 in reply to a law on [0, 10] is a poor draw, not a missing one. How much mass is on
  numbers at all, and how much of it is allowed, stands beside it as ``number_mass`` and ``valid_mass``.
- **The headline nW1 is clipped.** Answers and target are clipped to the target's 0.001 to 0.999 quantile
  range and W1 is divided by E|X - median| of the clipped target. So 0 is perfect, 1 is always answering the
  median, no single absurd answer decides a setting, and the value is finite for laws without a mean.
- **No sampling noise where none is needed.** A W1 against a step function is an integral of |F - G|, taken on
  a grid that holds every step, with the sign changes inside a cell taken exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Law = Any  # a frozen scipy.stats distribution

# Cells of a law's own grid: quantiles put them where the mass is, an even split of every quantile cell makes
# them cheap (one `cdf` call instead of thousands of root searches by `ppf`). Levels even on a normal scale
# refine the tails.
_SPLIT = 48
_LEVELS = stats.norm.cdf(np.linspace(-3.2, 3.2, 129))


def is_discrete(law: Law) -> bool:
    """Whether a frozen scipy law lives on the integers."""
    return isinstance(law.dist, stats.rv_discrete)


def _sorted(values: npt.ArrayLike, masses: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Values ascending and their masses normalised to one; both ``[n]``."""
    x, w = np.asarray(values, np.float64).ravel(), np.asarray(masses, np.float64).ravel()
    if x.shape != w.shape:
        raise ValueError(f"values and masses must have one length, got {len(x)} and {len(w)}")
    total = w.sum() if len(w) else 0.0
    if not np.isfinite(total) or total <= 0 or (w < 0).any() or np.isnan(x).any():
        raise ValueError("an answer law needs numbers, masses >= 0 and a positive finite total mass")
    order = np.argsort(x, kind="stable")
    return x[order], w[order] / total


def _steps(values: Floats, masses: Floats, at: Floats) -> tuple[Floats, Floats]:
    """CDF and survival function of a sorted answer law right of each point of ``at``; both ``[len(at)]``."""
    below = np.searchsorted(values, at, side="right")
    cdf = np.concatenate(([0.0], np.cumsum(masses)))
    # Summed from the other end, so that the survival function is exactly 0 past the last answer.
    survival = np.concatenate((np.cumsum(masses[::-1])[::-1], [0.0]))
    return cdf[below], survival[below]


def _law_grid(law: Law, low: float, high: float) -> Floats:
    """Points of a continuous law between ``low`` and ``high``, both included, dense where its mass is."""
    start, stop = law.cdf(low), law.cdf(high)
    edges = law.ppf(start + (stop - start) * (_LEVELS - _LEVELS[0]) / (_LEVELS[-1] - _LEVELS[0]))
    edges = np.concatenate(([low], np.clip(edges[1:-1], low, high), [high]))
    inner = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(_SPLIT) / _SPLIT)
    return np.append(inner.ravel(), high)


def _area(grid: Floats, answers: Floats, target: Floats) -> float:
    """Integral of |steps - line| on ``grid``: steps ``answers[:-1]``, a line through ``target``."""
    left, right = answers[:-1] - target[:-1], answers[:-1] - target[1:]
    same, total = left * right >= 0, np.abs(left) + np.abs(right)
    # A line that crosses zero leaves two triangles: (a^2 + b^2) / (2 (|a| + |b|)) times the width.
    crossing = (left**2 + right**2) / np.where(same, 1.0, total)
    return float(np.sum(np.diff(grid) * np.where(same, total, crossing)) / 2)


def _distance_continuous(x: Floats, w: Floats, law: Law, own: Floats) -> float:
    """Integral of |F_answers - F_law| over the span of the law's points ``own`` and the answers ``x``."""
    median = float(np.clip(law.median(), min(own[0], x[0]), max(own[-1], x[-1])))
    grid = np.unique(np.concatenate((own, x, [median])))
    # The upper half is taken from the top: 1 - F loses all digits of a thin tail.
    lower, upper = grid[grid <= median], grid[grid >= median]
    below, above = _steps(x, w, lower)[0], _steps(x, w, upper)[1]
    return _area(lower, below, law.cdf(lower)) + _area(upper, above, law.sf(upper))


def _discrete_cdf(law: Law, own: Floats, at: Floats) -> Floats:
    """CDF at any numbers ``at``, from its values at the consecutive integers ``own``, which hold all mass.

    scipy is asked at integers of the support only: it is slow for laws that it sums up term by term, and some
    of its laws give nan elsewhere.
    """
    table = np.concatenate(([0.0], law.cdf(own)))
    found: Floats = table[np.clip(np.floor(at) - own[0] + 1, 0, len(own)).astype(np.int64)]
    return found


def integers(law: Law) -> Floats:
    """The integers that hold all but 1e-13 of a discrete law at either end."""
    return np.arange(law.ppf(1e-13), law.isf(1e-13) + 1)


def _distance_discrete(x: Floats, w: Floats, law: Law, own: Floats) -> float:
    """The same for a law on the consecutive integers ``own``; exact, since both functions are steps."""
    grid = np.unique(np.concatenate((own, x)))
    gap = _steps(x, w, grid[:-1])[0] - _discrete_cdf(law, own, grid[:-1])
    return float(np.sum(np.abs(gap) * np.diff(grid)))


def w1_clipped(values: npt.ArrayLike, masses: npt.ArrayLike, law: Law, low: float, high: float) -> float:
    """Wasserstein-1 distance between answers and target, both clipped to ``[low, high]``.

    Clipping moves everything beyond an end onto it, so the distance is the integral of |F - G| over
    ``[low, high]``. For a discrete law it is exact. For a continuous one F is taken as linear between some
    6,000 points of the law and all answers; the relative error is about 1e-6 or less.

    Parameters
    ----------
    values : [n] array-like
        Numbers in any order, repeats allowed, infinities allowed.
    masses : [n] array-like
        Probability or count of each; normalised here.
    law : Law
        Frozen scipy law.
    low, high : float
        Ends of the range, usually the law's 0.001 and 0.999 quantiles; integers for a discrete law.

    Returns
    -------
    float
        The distance in the unit of the values.

    Raises
    ------
    ValueError
        If there is no mass, or ``low > high``.
    """
    if not low <= high:
        raise ValueError(f"the range must have low <= high, got {low} and {high}")
    if low == high:
        return 0.0
    x, w = _sorted(values, masses)
    x = np.clip(x, low, high)
    if is_discrete(law):
        return _distance_discrete(x, w, law, np.arange(low, high + 1))
    return _distance_continuous(x, w, law, _law_grid(law, low, high))


def clipped_scale(law: Law, low: float, high: float) -> float:
    """E|X - median| of the target clipped to ``[low, high]``: what always answering the median costs.

    It is the integral of min(F, 1 - F) over the range. The scale of nW1 is this study's choice: the standard
    deviation does not exist for every law here, and the interquartile range of Bernoulli(0.1) is 0. It is 0
    only where ``low == high``: a law that is all but certain, for which nW1 is nan.
    """
    median = float(np.clip(law.median(), low, high))
    return w1_clipped([median], [1.0], law, low, high)


def normalised_w1(values: npt.ArrayLike, masses: npt.ArrayLike, law: Law, low: float, high: float) -> float:
    """The headline nW1: ``w1_clipped / clipped_scale``; 0 is perfect, 1 is always answering the median."""
    scale = clipped_scale(law, low, high)
    return w1_clipped(values, masses, law, low, high) / scale if scale > 0 else float("nan")


def w1(values: npt.ArrayLike, masses: npt.ArrayLike, law: Law) -> float:
    """Wasserstein-1 distance without clipping: the integral of |F - G| over the whole line.

    Infinite where the target has no finite mean (Cauchy) or an answer is infinite. Tails are followed to a
    mass of e^-100 on a grid in the logarithm of the mass, which a tail of index 1.5 needs; the relative error
    there is about 1e-4.
    """
    x, w = _sorted(values, masses)
    if not np.isfinite(law.mean()) or not np.isfinite(x[w > 0]).all():
        return float("inf")
    x, w = x[w > 0], w[w > 0]
    if is_discrete(law):
        return _distance_discrete(x, w, law, integers(law))
    tail = np.exp(-np.log(1e3) - (100.0 - np.log(1e3)) * np.linspace(0.0, 1.0, 1000) ** 2)
    grid = _law_grid(law, law.ppf(1e-3), law.isf(1e-3))
    own = np.concatenate((_quantiles(law.ppf, law.cdf, tail), grid, _quantiles(law.isf, law.sf, tail)))
    return _distance_continuous(x, w, law, np.sort(own))


def _quantiles(quantile: Callable[[Floats], Floats], mass: Callable[[Floats], Floats], tail: Floats) -> Floats:
    """Quantiles whose mass is the one asked for: at e^-100 scipy's may overflow, or be wrong for some laws."""
    with warnings.catch_warnings():  # what they warn of is left out
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            found = quantile(tail)
        except OverflowError:  # inverse Gaussian of a narrow law
            return np.empty(0)
        right: Floats = found[np.isclose(mass(found), tail, rtol=1e-3, atol=0.0)]
    return right


def kolmogorov(values: npt.ArrayLike, masses: npt.ArrayLike, law: Law) -> float:
    """Kolmogorov distance sup |F - G|, for continuous and discrete targets.

    Between two answers the answer CDF is constant and the target's is monotone, so the supremum is reached at
    an answer, from the right or from the left; both limits are taken.
    """
    x, w = _sorted(values, masses)
    at, first = np.unique(x, return_index=True)
    cumulative = np.cumsum(w)
    right = np.append(cumulative[first[1:] - 1], 1.0)
    left = np.concatenate(([0.0], right[:-1]))
    if is_discrete(law):
        own = integers(law)
        here, before = _discrete_cdf(law, own, at), _discrete_cdf(law, own, np.ceil(at) - 1)
    else:
        here = before = law.cdf(at)
    return float(max(np.abs(right - here).max(), np.abs(left - before).max()))


def moments(values: npt.ArrayLike, masses: npt.ArrayLike) -> tuple[float, float]:
    """Mean and variance (not corrected for a sample) of an answer law."""
    x, w = _sorted(values, masses)
    mean = float(np.sum(w * x))
    return mean, float(np.sum(w * (x - mean) ** 2))


def total_variation(p: npt.ArrayLike, q: npt.ArrayLike) -> float:
    """Half the L1 distance of two probability vectors on the same outcomes."""
    return float(np.abs(np.asarray(p, np.float64) - np.asarray(q, np.float64)).sum() / 2)


def entropy(p: npt.ArrayLike) -> float:
    """Shannon entropy in nats; outcomes of probability 0 add nothing."""
    p = np.asarray(p, np.float64)
    return float(-np.sum(p * np.log(np.where(p > 0, p, 1.0))))
