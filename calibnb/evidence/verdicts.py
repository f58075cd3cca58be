"""Verdicts: what a 95 % interval says of a claim, by rules on numbers alone.

A rule takes the two ends of an interval. An end that does not exist, None or nan, decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd

from calibnb.evidence.results import RARE

Verdict = Literal["supported", "refuted", "open", "not comparable", "not determined", "measured"]
# The smallest and the largest of n drawn values have the median between them with a probability of 1 - 2 ** (1 - n):
# 97 % of six, 94 % of five; resampling reaches no further than these two (David and Nagaraja, *Order Statistics*, 2003,
# section 7.1).
FEWEST = 6

Rule = Callable[[float | None, float | None], Verdict]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def above(low: float | None, high: float | None, edge: float) -> Verdict:
    """The claim that a value is above `edge`.

    Supported if the whole interval is above the edge, refuted if the whole interval is below it, open otherwise: an
    end exactly on the edge leaves it open, and so does one that does not exist.
    """
    bottom, top = _number(low), _number(high)
    if math.isnan(bottom) or math.isnan(top):
        return "open"
    return "supported" if bottom > edge else "refuted" if top < edge else "open"


def below(low: float | None, high: float | None, edge: float) -> Verdict:
    """The claim that a value is below `edge`: :func:`above` mirrored."""
    return above(-_number(high), -_number(low), -edge)


def below_one(low: float | None, high: float | None) -> Verdict:
    """The claim that an nW1, or a ratio of two distances, is below 1."""
    return below(low, high, 1.0)


def above_half(low: float | None, high: float | None) -> Verdict:
    """The claim that a share is more than a half."""
    return above(low, high, 0.5)


def above_zero(low: float | None, high: float | None) -> Verdict:
    """The claim that a difference is a gain."""
    return above(low, high, 0.0)


def below_zero(low: float | None, high: float | None) -> Verdict:
    """The claim that a difference is a loss."""
    return below(low, high, 0.0)


def measured(low: float | None, high: float | None) -> Verdict:
    """What is no claim has no side: it is measured, whatever its interval."""
    return "measured"


def determined(nw1: float | None, slack: float | None) -> bool:
    """Whether an nW1 is known: what the search leaves open of it, `slack`, is less than the value itself.

    False where one of the two does not exist.
    """
    return _number(slack) < _number(nw1)


def determined_groups(summary: pd.DataFrame, by: Sequence[str]) -> pd.Series[bool]:
    """Whether nW1 is known, as :func:`determined` says of the value and of ``nw1_slack``.

    Parameters
    ----------
    summary : DataFrame
        Rows of ``measure, value`` and the columns `by`, ``nw1`` and ``nw1_slack`` among the measures.
    by : Sequence[str]
        Columns that tell summaries apart.

    Returns
    -------
    Series
        A truth value for each of `by`; False where one of the two does not exist.
    """
    found = summary.pivot(index=list(by), columns="measure", values="value").reindex(columns=["nw1", "nw1_slack"])
    known = [determined(*pair) for pair in zip(found["nw1"], found["nw1_slack"], strict=True)]
    return pd.Series(known, index=found.index, dtype=bool)


def alike(own: float | None, other: float | None) -> bool:
    """Whether both or neither of two variants answer mostly, in more than half of the draws, in bare numbers.

    Parameters
    ----------
    own, other : float or None
        Shares of bare numbers; one that does not exist is no majority.
    """
    return (_number(own) > 0.5) == (_number(other) > 0.5)


def rare(own: float | None, other: float | None) -> bool:
    """Whether valid answers of one of two variants are rarer than `RARE`: nothing can be said given a valid one.

    Parameters
    ----------
    own, other : float or None
        Probabilities of a valid answer; of one that does not exist nothing is said.
    """
    return _number(own) < RARE or _number(other) < RARE


def verdict(
    rule: Rule, low: float | None, high: float | None, *, known: bool, comparable: bool, units: int | None
) -> Verdict:
    """The verdict of a rule, if there is something to judge.

    Parameters
    ----------
    rule : Rule
        Rule of the claim, or :func:`measured`.
    low, high : float or None
        The 95 % interval.
    known : bool
        Whether each nW1 behind it is :func:`determined`; else it is not determined, claim or not.
    comparable : bool
        Whether the two that are compared do the same thing; else they are not comparable.
    units : int or None
        How many families or items the interval speaks of others from; fewer than `FEWEST` decide no claim. None where
        the interval does not come from resampling them.
    """
    if not known:
        return "not determined"
    if not comparable:
        return "not comparable"
    few = units is not None and units < FEWEST
    return rule(None, None) if few else rule(low, high)
