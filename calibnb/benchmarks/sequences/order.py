"""Order and repeats of draws: what exchangeable, independent draws would show, exactly, beside what is seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from calibnb.laws.distances import Floats, Law, integers, is_discrete

FINEST = 4  # decimals: finer ones are taken as so many, where repeats are rare enough


def halves(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """``[n]`` which values lie in the upper half: above the median, or at it as well where that divides more evenly.

    Which of the two it is does not depend on the order of the values.
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        return np.zeros(0, bool)
    middle = np.median(x)
    above, from_it = x > middle, x >= middle
    return above if abs(2 * above.sum() - len(x)) <= abs(2 * from_it.sum() - len(x)) else from_it


def runs_z(upper: npt.ArrayLike) -> float:
    """Wald and Wolfowitz's runs of two kinds, standardised: below 0 for draws that stay, above 0 for ones that switch.

    Given that `a` draws are of one kind and `b` of the other, and every order is equally likely, the number of runs has
    mean 1 + 2ab / n and variance 2ab (2ab - n) / (n^2 (n - 1)) (Wald and Wolfowitz, 1940).

    Parameters
    ----------
    upper : [n] bool array-like
        The kind of each draw.

    Returns
    -------
    float
        nan where the number of runs is certain.
    """
    kinds = np.asarray(upper, bool)
    n, pairs = len(kinds), 2 * int(kinds.sum()) * int((~kinds).sum())
    if pairs <= n:  # all alike, or one of each: no two numbers of runs are possible
        return math.nan
    runs = 1 + int((kinds[1:] != kinds[:-1]).sum())
    return (runs - 1 - pairs / n) / math.sqrt(pairs * (pairs - n) / (n**2 * (n - 1)))


def lag_one(values: npt.ArrayLike) -> float:
    """Correlation of each draw with the next; -1/n on average if every order is equally likely.

    It is nan where all draws are equal, and where one is infinite.
    """
    x = np.asarray(values, np.float64)
    if len(np.unique(x)) < 2 or not np.isfinite(x).all():
        return math.nan
    x = x / np.abs(x).max()  # lest squares of absurd draws overflow
    centred = x - x.mean()
    return float(centred[1:] @ centred[:-1]) / float(centred @ centred)


def repeats(values: Sequence[float]) -> int:
    """How many draws equal one before."""
    return len(values) - len(set(values))


def cells(law: Law, decimals: int) -> Floats:
    """Probabilities of what can be written: integers, or for a continuous law numbers with so many decimals.

    Parameters
    ----------
    law : Law
        Frozen scipy law.
    decimals : int
        Decimals that a draw is rounded to; more than `FINEST` count as so many.

    Returns
    -------
    [k] float array
        They sum to 1 but for 2e-9 in the tails.
    """
    if is_discrete(law):
        own = integers(law)
        masses: Floats = law.pmf(own)
        return masses
    scale = 10.0 ** min(decimals, FINEST)
    first, last = math.floor(law.ppf(1e-9) * scale), math.ceil(law.isf(1e-9) * scale)
    edges = (np.arange(first, last + 2) - 0.5) / scale
    return np.diff(law.cdf(edges))


def expected_repeats(p: Floats, n: int) -> float:
    """How many of `n` independent draws equal one before, on average: n less the expected number of different ones."""
    return float(n + np.expm1(n * np.log1p(-np.minimum(p, 1 - 1e-16))).sum())


def collision(p: Floats) -> float:
    """The probability that two independent draws are equal."""
    return float(p @ p)


def alike(outcomes: Sequence[Hashable]) -> float:
    """The share of pairs of outcomes that are equal; nan for less than two."""
    n = len(outcomes)
    pairs = sum(count * (count - 1) for count in Counter(outcomes).values())
    return pairs / (n * (n - 1)) if n > 1 else math.nan
