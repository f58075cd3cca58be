"""Measures of the structured benchmark against closed forms and direct sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibnb.benchmarks.structured.measures import Target, closed_measures, mean_distance, measures_of_open_law
from calibnb.laws.specs import Spec
from calibnb.trees.number_search import OpenLaw

numbers = st.lists(st.floats(-50, 50), min_size=1, max_size=20)


@given(numbers, numbers, st.integers(0, 99))
def test_mean_distance_equals_the_double_sum(at: list[float], values: list[float], seed: int) -> None:
    masses = np.random.default_rng(seed).uniform(0.1, 1, len(values))
    p = masses / masses.sum()
    expected = np.abs(np.array(at)[:, None] - np.array(values)) @ p
    np.testing.assert_allclose(mean_distance(np.array(at), np.array(values), masses), expected, atol=1e-9)


def test_closed_measures_split_the_divergence() -> None:
    target = np.array([0.5, 0.3, 0.2])
    model = np.array([0.2, 0.2, 0.1])  # half of the model's mass is elsewhere
    found = closed_measures(np.log(model), target)
    assert found["canonical_mass"] == pytest.approx(0.5)
    assert found["kl_format"] == pytest.approx(-np.log(0.5))
    assert found["kl_shape"] == pytest.approx(np.sum(target * np.log(target / (model / 0.5))))
    assert found["kl"] == pytest.approx(np.sum(target * np.log(target / model)))
    assert found["total_variation"] == pytest.approx(0.5 * (0.3 + 0.1 + 0.1 + 0.5))


def law_of(text: dict[str, float], prefixes: list[tuple[float, float, float, float]]) -> OpenLaw:
    low, high, value, mass = (np.array(c) for c in zip(*prefixes, strict=True)) if prefixes else [np.empty(0)] * 4
    values = np.array([float(t) for t in text])
    return OpenLaw(list(text), values, np.array(list(text.values())), low, high, value, mass, 1, 1)


COIN = Spec("bernoulli", (("p", 0.5),), "held_out")


def test_a_perfect_coin_is_perfect_and_what_is_no_number_counts_as_mass_only() -> None:
    found = measures_of_open_law(law_of({"0": 0.4, "1": 0.4}, []), Target.of(COIN))
    assert found["nw1"] == pytest.approx(0)
    assert found["valid_mass"] == pytest.approx(0.8)
    assert found["nw1_slack"] == 0
    wrong = measures_of_open_law(law_of({"0": 0.4, "0.5": 0.1, "2": 0.3}, []), Target.of(COIN))
    assert wrong["valid_mass"] == pytest.approx(0.4)
    assert wrong["support_violation"] == pytest.approx(0.4)


def test_the_slack_covers_whatever_open_prefixes_turn_into() -> None:
    """Every way in which two open prefixes may end is within the slack of the reported value."""
    spec = Spec("uniform", (("a", 0.0), ("b", 1.0)), "unseen")
    target = Target.of(spec)
    closed = {"0.1": 0.2, "0.4": 0.3, "0.9": 0.3}
    prefixes = [(0.2, 0.3, 0.25, 0.05), (0.7, 0.8, 0.75, 0.1)]
    reported = measures_of_open_law(law_of(closed, prefixes), target)
    assert reported["certificate"] == pytest.approx(0.15)
    for first in (None, "0.2", "0.29"):
        for second in (None, "0.7", "0.79"):
            ends = [(t, m) for t, m in ((first, 0.05), (second, 0.1)) if t is not None]
            truth = measures_of_open_law(law_of(closed | dict(ends), []), target)
            assert abs(truth["nw1"] - reported["nw1"]) <= reported["nw1_slack"] + 1e-9


def test_a_model_without_numbers_has_no_shape_to_measure() -> None:
    found = measures_of_open_law(law_of({}, [(-np.inf, np.inf, 0.0, 0.1)]), Target.of(COIN))
    assert found["valid_mass"] == 0
    assert found["nw1_slack"] == np.inf
