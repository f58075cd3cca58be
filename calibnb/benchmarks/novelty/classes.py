"""Classes of answers that say the same: the rule on shared words, partitions, utility."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from calibnb.benchmarks.novelty.prompt_sets import Pair, Same

SHORT = 5  # the longest answer, in words, that the rule on shared words judges


def short_rule(a: str, b: str) -> bool | None:
    """Whether two answers of at most five words say the same; None where the rule does not apply.

    Words are what white space separates, in lower case. Two answers are the same if twice the number of different
    words that they share reaches the number of words of the longer one, repeats counted. So "a cat" and "a dog"
    are the same, and so are two empty answers; "ha ha ha" is not even the same as itself. All as published
    (Zhang et al., 2025), but for one thing: an empty answer and a longer one are not the same, and no model is
    asked about it.
    """
    left, right = a.lower().split(), b.lower().split()
    longer = max(len(left), len(right))
    if longer > SHORT:
        return None if left and right else False
    return 2 * len(set(left) & set(right)) >= longer


class Partition(NamedTuple):
    """The answers of one prompt cut into classes.

    Attributes
    ----------
    classes : list[int]
        Class of each answer, numbered from 0 in the order of their first members.
    compared : int
        Pairs that were compared.
    short : int
        How many of them the rule on short answers decided.
    """

    classes: list[int]
    compared: int
    short: int


def partitions(groups: Sequence[Sequence[str]], same: Same) -> list[Partition]:
    """Cut the answers of many prompts into classes, greedily (Zhang et al., 2025).

    The first answer without a class opens one and takes in all later ones that say the same as it does; members
    are not compared with each other. A round opens one class in every group at once, so that `same` is asked
    about many pairs in one call: (first member, later answer), those alone that :func:`short_rule` leaves open.

    Returns
    -------
    list[Partition]
        A partition a group, in order.
    """
    classes = [[-1] * len(answers) for answers in groups]
    compared, short = [0] * len(groups), [0] * len(groups)
    for opened in itertools.count():
        pairs: list[Pair] = []
        places: list[tuple[int, int]] = []
        for group, answers in enumerate(groups):
            left = [i for i, number in enumerate(classes[group]) if number < 0]
            for i in left[:1]:
                classes[group][i] = opened
            for i in left[1:]:
                verdict = short_rule(answers[left[0]], answers[i])
                compared[group] += 1
                if verdict is None:
                    pairs.append((answers[left[0]], answers[i]))
                    places.append((group, i))
                    continue
                short[group] += 1
                if verdict:
                    classes[group][i] = opened
        if pairs:
            for (group, i), verdict in zip(places, same(pairs), strict=True):
                if verdict:
                    classes[group][i] = opened
        if not any(-1 in numbers for numbers in classes):
            break
    return [Partition(*row) for row in zip(classes, compared, short, strict=True)]


def distinct(classes: Sequence[int]) -> int:
    """The number of classes among the answers of one prompt."""
    return len(set(classes))


def is_first(classes: Sequence[int]) -> list[bool]:
    """Whether each answer is the first member of its class."""
    return [number not in classes[:i] for i, number in enumerate(classes)]


# Rewards of Skywork-Reward-Gemma-2-27B-v0.2 between which ratings change, as published with the benchmark.
THRESHOLDS = (-7.71875, -6.28125, -6.0, -5.71875, -5.5, -5.0, -4.375, -3.4375, -2.046875)


def rating(reward: float) -> int:
    """A reward as a rating from 1 to 10: one more than the number of `THRESHOLDS` strictly below it.

    Raises
    ------
    ValueError
        For a reward that is not finite.
    """
    if not math.isfinite(reward):
        raise ValueError(f"a reward must be finite, got {reward}")
    return 1 + bisect_left(THRESHOLDS, reward)


def utility(classes: Sequence[int], ratings: Sequence[float], *, patience: float) -> float:
    """Weighted mean of what each answer adds (Zhang et al., 2025, section 3): sum_i p^i s_i / sum_i p^i.

    Here s_i is the rating of a class's first member and 0 for repeats, p the patience.

    Parameters
    ----------
    classes : Sequence[int]
        Classes of the answers in the order in which they are read.
    ratings : Sequence[float]
        Theirs, in [1, 10]; those of repeats are not read.
    patience : float
        In [0, 1].
    """
    weights = patience ** np.arange(len(classes))
    added = np.where(is_first(classes), np.asarray(ratings, np.float64), 0.0)
    return float(weights @ added / weights.sum())
