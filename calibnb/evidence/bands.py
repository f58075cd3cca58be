"""What a perfect sampler scores with as many draws, and what draws from a known law do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from calibnb.evidence.intervals import percentiles
from calibnb.laws.distances import Floats, Law, clipped_scale, integers, is_discrete, w1_clipped


class SamplingBand(NamedTuple):
    """Distribution of a sampled nW1 over repeats: mean, standard deviation, 2.5 % and 97.5 % quantiles."""

    mean: float
    sd: float
    low: float
    high: float


def _band(distances: Floats, scale: float) -> SamplingBand:
    """The band of distances in units of ``scale``; nan for a law that is all but certain, whose scale is 0."""
    if scale == 0:
        return SamplingBand(*[float("nan")] * 4)
    nw1 = distances / scale
    return SamplingBand(float(nw1.mean()), float(nw1.std(ddof=1)), *percentiles(nw1, 0.95))


def perfect_sampler_floor(law: Law, low: float, high: float, n: int, repeats: int, seed: int) -> SamplingBand:
    """nW1 that ``n`` draws from the law itself get: a sampled nW1 cannot be expected below its mean.

    Parameters
    ----------
    law : Law
        Frozen scipy law, continuous or discrete.
    low, high : float
        Its 0.001 and 0.999 quantiles.
    n : int
        Draws in one sample.
    repeats : int
        Samples; at least 2.
    seed : int
        Seed of the samples.
    """
    if is_discrete(law):  # `rvs` refuses some laws with parameters such as n = 25.0, so draw from the masses
        own = integers(law)
        masses = np.diff(np.concatenate(([0.0], law.cdf(own))))
        return sampling_band(own, masses, law, low, high, n, repeats, seed)
    draws = law.rvs(size=(repeats, n), random_state=np.random.default_rng(seed))
    distances = [w1_clipped(sample, np.ones(n), law, low, high) for sample in draws]
    return _band(np.asarray(distances), clipped_scale(law, low, high))


def sampling_band(
    values: npt.ArrayLike,
    masses: npt.ArrayLike,
    law: Law,
    low: float,
    high: float,
    n: int,
    repeats: int,
    seed: int,
) -> SamplingBand:
    """nW1 that ``n`` draws from a known answer law get.

    W1 of a sample is biased upwards, so an exact nW1 and a sampled one are not comparable as they stand. What
    can be compared is the sampled value with the band that the exact law implies at the same number of draws.

    Parameters
    ----------
    values, masses : [m] array-like
        The answer law; masses are normalised.
    law : Law
        Frozen scipy law of the target.
    low, high : float
        Its 0.001 and 0.999 quantiles.
    n : int
        Answers that were numbers in one sample.
    repeats : int
        Samples; at least 2.
    seed : int
        Seed of the samples.
    """
    x, w = np.asarray(values, np.float64), np.asarray(masses, np.float64)
    counts = np.random.default_rng(seed).multinomial(n, w / w.sum(), size=repeats)
    distances = [w1_clipped(x, count, law, low, high) for count in counts]
    return _band(np.asarray(distances), clipped_scale(law, low, high))


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


def beside(measures: Mapping[str, float], perfect: Mapping[str, float], ratios: Sequence[str] = ()) -> dict[str, float]:
    """Each measure, what a perfect sampler gets, and for some their ratio."""
    row: dict[str, float] = {}
    for name, value in measures.items():
        row |= {name: value, f"{name}_perfect": perfect[name]}
        if name in ratios:
            row[f"{name}_ratio"] = value / perfect[name]
    return row
