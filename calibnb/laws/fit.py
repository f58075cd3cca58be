"""Tests of fit: could these draws be draws from the law itself?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from calibnb.laws.distances import Floats, Law, integers


class FitTest(NamedTuple):
    """A test statistic and its p-value; both nan where the sample is too small for the test."""

    statistic: float
    pvalue: float


def pooled_cells(law: Law, n: int, minimum: float = 5.0) -> tuple[Floats, Floats]:
    """Cells of a discrete law that each expect at least ``minimum`` of ``n`` draws.

    The cells follow from the law alone, never from the sample, so the chi-square law of the statistic holds.
    Neighbouring integers are pooled from the left; what remains at the right joins the last cell. The first
    and the last cell hold the tails.

    Returns
    -------
    tuple[float array, float array]
        ``[c - 1]`` right ends of all cells but the last (inclusive), and ``[c]`` expected counts with sum ``n``.
    """
    points = integers(law)
    ends: list[float] = []
    closed = 0.0
    for point, reached in zip(points, n * law.cdf(points), strict=True):
        # Both this cell and what is left over must be large enough.
        if reached - closed >= minimum and n - reached >= minimum:
            ends.append(float(point))
            closed = float(reached)
    cumulative = np.concatenate(([0.0], n * law.cdf(np.asarray(ends)), [float(n)]))
    return np.asarray(ends), np.diff(cumulative)


def fit_test(samples: npt.ArrayLike, law: Law, discrete: bool) -> FitTest:
    """Test whether valid answers are draws from the law.

    Kolmogorov-Smirnov for a continuous law (``scipy.stats.kstest``); Pearson's chi-square on pooled cells for
    a discrete one. A continuous law answered with few decimals has ties, which no continuous law has: with
    many draws the test sees the rounding.

    Parameters
    ----------
    samples : [n] array-like
        Valid answers (numbers inside the support, integers where the law is discrete).
    law : Law
        Frozen scipy law.
    discrete : bool
        Whether it lives on the integers.
    """
    x = np.asarray(samples, np.float64)
    if discrete:
        ends, expected = pooled_cells(law, len(x)) if len(x) else (np.empty(0), np.zeros(1))
        if len(expected) < 2:
            return FitTest(float("nan"), float("nan"))
        observed = np.bincount(np.searchsorted(ends, np.rint(x), side="left"), minlength=len(expected))
        chi_square = stats.chisquare(observed, expected)
        return FitTest(float(chi_square.statistic), float(chi_square.pvalue))
    if len(x) == 0:
        return FitTest(float("nan"), float("nan"))
    kolmogorov_smirnov = stats.kstest(x, law.cdf)
    return FitTest(float(kolmogorov_smirnov.statistic), float(kolmogorov_smirnov.pvalue))
