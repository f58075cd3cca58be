"""Shuffles: permutations that should be uniform, beside what uniform ones get."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from calibnb.evidence.bands import beside, perfect_tv
from calibnb.laws.distances import Floats, total_variation

Ints = npt.NDArray[np.int64]
REPEATS = 1000  # simulated perfect samplers behind an expectation that has no closed form


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
        return beside(measures, dict(measures), ratios=distances)
    rows = np.array(orders, np.int64).reshape(m, n)
    turned, law, pairs = np.array([inversions(row) for row in rows.tolist()]), inversions_law(n), n * (n - 1) // 2
    even = np.full(n, 1 / n)
    measures = {
        "first_tv": total_variation(np.bincount(rows[:, 0], minlength=n) / m, even),
        "position_deviation": position_deviation(rows),
        "inversions_tv": total_variation(np.bincount(turned, minlength=len(law)) / m, law),
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
    return beside(measures, perfect, ratios=distances)
