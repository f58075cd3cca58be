"""The law on answers: the canonical strings a model may give for a setting, and how probable each should be.

Continuous laws are put on a decimal grid between their 0.001 and 0.999 quantiles; a string's probability is
the mass between the midpoints to its neighbours, and what lies beyond the ends goes to the edge strings.
`thin` keeps the finest grid and drops points evenly by index (the paper's choice); its trailing digits are
arbitrary, so no model can learn them. `coarsen` drops decimals until the whole grid fits. Discrete laws keep
their integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibnb.errors import UserError
from calibnb.laws.grids import Discretisation
from calibnb.laws.params import SpaceParams
from calibnb.laws.specs import Spec

Floats = NDArray[np.float64]
TAILS = (0.001, 0.999)
LARGEST = 2**53  # beyond it a float64 no longer holds every integer, so strings and values would part
SLACK = 1e-6  # in grid steps: a quantile that is a grid point up to rounding counts as one


@dataclass(frozen=True, eq=False)
class AnswerLaw:
    """The answers to one prompt.

    Attributes
    ----------
    strings : list[str]
        n canonical decimals, all with the same number of places; no exponent, no "-0".
    values : [n] float64 array
        Ascending; `values[i] == float(strings[i])`.
    probabilities : [n] float64 array
        All > 0, sum 1.
    """

    strings: list[str]
    values: Floats
    probabilities: Floats


def quantile_range(law: Any) -> tuple[float, float]:
    """The 0.001 and 0.999 quantiles of a frozen `scipy.stats` law."""
    low, high = law.ppf(TAILS)
    return float(low), float(high)


def of_spec(spec: Spec, space: SpaceParams) -> AnswerLaw:
    """The answer law of a setting; what `answer_law` raises gets the setting's name in front."""
    try:
        return answer_law(
            spec.law,
            spec.discrete,
            spec.support,
            discretisation=space.discretisation,
            num_decimals=space.num_decimals,
            max_bins=space.max_bins,
        )
    except UserError as error:
        raise UserError(f"{spec.label}: {error}") from None


def answer_law(
    law: Any,
    discrete: bool,
    support: tuple[float, float],
    *,
    discretisation: Discretisation,
    num_decimals: int,
    max_bins: int,
) -> AnswerLaw:
    """The canonical strings of a law and their probabilities.

    Parameters
    ----------
    law
        Frozen `scipy.stats` law.
    discrete : bool
        Whether it lives on the integers; then `discretisation` and `num_decimals` play no part.
    support : tuple[float, float]
        Its closed support (low, high).
    discretisation : Discretisation
        What to do where the grid has more than `max_bins` points: drop points or drop decimals.
    num_decimals : int
        Places of the finest grid.
    max_bins : int
        Most strings a law may have.

    Raises
    ------
    UserError
        A discrete support is larger than `max_bins`, or no grid point lies between the quantiles.
    """
    if discrete:
        return _discrete(law, support, max_bins)
    low, high = quantile_range(law)
    low, high = max(low, support[0]), min(high, support[1])
    decimals, first, last = _grid(low, high, discretisation, num_decimals, max_bins)
    count = last - first + 1
    if count < 1:
        raise UserError(
            f"no number with {decimals} decimals lies between the 0.001 and 0.999 quantiles {low:g}, {high:g}"
        )
    if max(abs(first), abs(last)) > LARGEST:
        raise UserError(f"{low:g} to {high:g} must be less than 2**53 steps of {decimals} decimals from 0")
    index = first + _even(count, min(count, max_bins))
    # Division by a power of ten is correctly rounded, so the value is the float its string reads back as.
    exact = index / 10.0**decimals if decimals >= 0 else index * 10.0**-decimals
    values = np.asarray(exact, dtype=np.float64)
    inner = law.cdf((values[1:] + values[:-1]) / 2)
    mass = np.diff(inner, prepend=0.0, append=1.0)
    places = max(decimals, 0)
    return _law([f"{x:.{places}f}" for x in values.tolist()], values, mass)


def _discrete(law: Any, support: tuple[float, float], max_bins: int) -> AnswerLaw:
    low, high = integer_range(law, support)
    count = high - low + 1
    if count > max_bins:
        raise UserError(f"the {count} integers from {low} to {high} must fit max_bins, got {max_bins}")
    values = np.arange(low, high + 1, dtype=np.float64)
    # pmf rather than differences of the cdf: for several scipy laws the cdf is a slow sum over it.
    mass = np.asarray(law.pmf(values), dtype=np.float64)
    if math.isinf(support[0]):
        mass[0] = law.cdf(low)
    if math.isinf(support[1]):
        mass[-1] = 1.0 - mass[:-1].sum()
    return _law([str(x) for x in range(low, high + 1)], values, mass)


def integer_range(law: Any, support: tuple[float, float]) -> tuple[int, int]:
    """The first and last integer of a discrete law; an end without bound is cut at its outer quantile."""
    low, high = support
    if math.isinf(low):
        low = float(law.ppf(TAILS[0]))
    if math.isinf(high):
        high = float(law.ppf(TAILS[1]))
    return int(low), int(high)


def fits(low: float, high: float, discretisation: Discretisation, num_decimals: int, max_bins: int) -> bool:
    """Whether an output space has a point for a continuous law whose outer quantiles are `low` and `high`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return False
    _, first, last = _grid(low, high, discretisation, num_decimals, max_bins)
    return last >= first and max(abs(first), abs(last)) <= LARGEST


def _grid(
    low: float, high: float, discretisation: Discretisation, num_decimals: int, max_bins: int
) -> tuple[int, int, int]:
    """The grid that an output space puts between `low` and `high`: (decimals, first, last).

    `first` and `last` count steps of 10**-decimals; negative decimals are steps of 10, 100, ...
    """
    decimals = num_decimals
    while True:
        scale = 10.0**decimals
        first, last = math.ceil(low * scale - SLACK), math.floor(high * scale + SLACK)
        if discretisation == "thin" or (last - first + 1 <= max_bins and max(abs(first), abs(last)) <= LARGEST):
            return decimals, first, last
        decimals -= 1


def _even(count: int, kept: int) -> NDArray[np.int64]:
    """`kept` of the indices 0 ... count - 1, as evenly spaced as whole numbers allow, both ends included.

    They come from the two numbers alone, as the whole grid may hold billions, and in integers, so that no
    platform rounds a tie another way.
    """
    i = np.arange(kept, dtype=np.int64)
    gaps = max(kept - 1, 1)
    whole, rest = divmod(count - 1, gaps)
    return i * whole + (2 * i * rest + gaps) // (2 * gaps)


def _law(strings: list[str], values: Floats, mass: Floats) -> AnswerLaw:
    """Normalise, and leave out strings without any mass (a Bernoulli law with p = 0 never answers 1)."""
    keep = mass > 0
    if not keep.all():
        strings = [s for s, k in zip(strings, keep, strict=True) if k]
        values, mass = values[keep], mass[keep]
    return AnswerLaw(strings, values, mass / mass.sum())
