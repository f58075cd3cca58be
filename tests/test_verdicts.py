"""Verdicts: every rule on both sides of its edge, on the edge, and where a number does not exist."""

from __future__ import annotations

import math

import pytest

from calibnb.evidence import verdicts
from calibnb.evidence.results import RARE

NAN = math.nan
ABSENT = [(None, None), (NAN, NAN), (None, 5.0), (5.0, None), (-5.0, NAN), (NAN, -5.0)]
INF = math.inf


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 0.9, "supported"),
        (0.2, 0.999999, "supported"),
        (0.2, 1.0, "open"),  # an end on the edge is not on the claim's side
        (0.9, 1.1, "open"),
        (1.0, 1.0, "open"),
        (1.0, 1.5, "open"),
        (1.000001, 1.5, "refuted"),
        (1.1, 1.5, "refuted"),
        (-INF, 0.5, "supported"),
        (0.5, INF, "open"),
        (INF, INF, "refuted"),
        *((low, high, "open") for low, high in ABSENT),
    ],
)
def test_a_ratio_is_below_one(low: float | None, high: float | None, expected: str) -> None:
    assert verdicts.below_one(low, high) == expected


@pytest.mark.parametrize(
    ("low", "high", "gain", "loss"),
    [
        (0.1, 0.4, "supported", "refuted"),
        (1e-9, 0.4, "supported", "refuted"),
        (0.0, 0.4, "open", "open"),
        (-0.1, 0.4, "open", "open"),
        (0.0, 0.0, "open", "open"),
        (-0.0, 0.0, "open", "open"),
        (-0.4, 0.0, "open", "open"),
        (-0.4, -1e-9, "refuted", "supported"),
        (-0.4, -0.1, "refuted", "supported"),
        *((low, high, "open", "open") for low, high in ABSENT),
    ],
)
def test_a_difference_is_a_gain_or_a_loss(low: float | None, high: float | None, gain: str, loss: str) -> None:
    assert verdicts.above_zero(low, high) == gain
    assert verdicts.below_zero(low, high) == loss


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.6, 0.9, "supported"),
        (0.500001, 0.6, "supported"),
        (0.5, 0.9, "open"),
        (0.4, 0.6, "open"),
        (0.1, 0.5, "open"),
        (0.1, 0.499999, "refuted"),
        (0.1, 0.4, "refuted"),
        *((low, high, "open") for low, high in ABSENT),
    ],
)
def test_a_share_is_more_than_a_half(low: float | None, high: float | None, expected: str) -> None:
    assert verdicts.above_half(low, high) == expected


@pytest.mark.parametrize("edge", [-2.0, 0.0, 0.5])
def test_the_directions_mirror_each_other(edge: float) -> None:
    sides = {(edge + 1, edge + 2): "supported", (edge - 1, edge + 1): "open", (edge - 2, edge - 1): "refuted"}
    for (low, high), expected in sides.items():
        assert verdicts.above(low, high, edge) == expected
        assert verdicts.below(2 * edge - high, 2 * edge - low, edge) == expected


@pytest.mark.parametrize("ends", [(0.0, 0.5), (2.0, 3.0), *ABSENT])
def test_what_is_no_claim_is_measured(ends: tuple[float | None, float | None]) -> None:
    assert verdicts.measured(*ends) == "measured"


@pytest.mark.parametrize(
    ("nw1", "slack", "expected"),
    [
        (0.5, 0.49, True),
        (0.5, 0.5, False),
        (0.5, 0.51, False),
        (0.0, 0.0, False),
        (0.5, 0.0, True),
        (INF, 1.0, True),
        (NAN, 0.1, False),
        (0.5, NAN, False),
        (None, 0.1, False),
        (0.5, None, False),
    ],
)
def test_an_nw1_is_determined_by_less_slack_than_value(nw1: float | None, slack: float | None, expected: bool) -> None:
    assert verdicts.determined(nw1, slack) is expected


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (0.6, 0.9, True),
        (0.1, 0.4, True),
        (0.6, 0.4, False),
        (0.4, 0.6, False),
        (0.5, 0.4, True),  # a half is no majority
        (0.5, 0.6, False),
        (0.5, 0.5, True),
        (0.500001, 0.5, False),
        (NAN, 0.4, True),
        (None, 0.6, False),
        (0.6, None, False),
    ],
)
def test_alike_are_two_majorities_of_numbers_or_none(own: float | None, other: float | None, expected: bool) -> None:
    assert verdicts.alike(own, other) is expected


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (RARE, RARE, False),
        (2 * RARE, 0.9, False),
        (0.99 * RARE, 0.9, True),
        (0.9, 0.99 * RARE, True),
        (0.0, 0.0, True),
        (NAN, 0.9, False),
        (NAN, 0.0, True),
        (0.0, None, True),
        (None, None, False),
    ],
)
def test_rare_is_a_valid_answer_below_one_in_a_hundred(own: float | None, other: float | None, expected: bool) -> None:
    assert verdicts.rare(own, other) is expected


@pytest.mark.parametrize("rule", [verdicts.below_one, verdicts.above_zero, verdicts.below_zero, verdicts.measured])
@pytest.mark.parametrize("ends", [(-2.0, -1.0), (0.5, 0.6), (0.5, 2.0), (2.0, 3.0), (None, None)])
def test_nothing_is_judged_that_is_unknown_or_not_comparable(
    rule: verdicts.Rule, ends: tuple[float | None, float | None]
) -> None:
    assert verdicts.verdict(rule, *ends, known=True, comparable=True, units=verdicts.FEWEST) == rule(*ends)
    assert verdicts.verdict(rule, *ends, known=True, comparable=True, units=None) == rule(*ends)
    assert verdicts.verdict(rule, *ends, known=False, comparable=True, units=None) == "not determined"
    assert verdicts.verdict(rule, *ends, known=True, comparable=False, units=None) == "not comparable"
    assert verdicts.verdict(rule, *ends, known=False, comparable=False, units=None) == "not determined"


def test_few_families_decide_no_claim() -> None:
    """The extremes of n draws miss the median if all lie on one side of it: two chances of 2 ** -n."""
    assert 1 - 2 * 0.5**verdicts.FEWEST >= 0.95 > 1 - 2 * 0.5 ** (verdicts.FEWEST - 1)
    few = {"known": True, "comparable": True, "units": verdicts.FEWEST - 1}
    assert verdicts.verdict(verdicts.below_one, 0.4, 0.9, **few) == "open"
    assert verdicts.verdict(verdicts.below_one, 1.1, 1.6, **few) == "open"
    assert verdicts.verdict(verdicts.measured, 0.4, 0.9, **few) == "measured"
