"""Knowing where a law lies and drawing from it: parts of a distance, what is asked, and gaps that close."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_code import ROOT
from scipy import stats

from calibnb.benchmarks.told import items, measures
from calibnb.benchmarks.told.gaps import gap_closed, told_ratio
from calibnb.laws import affine, canonical, specs
from calibnb.laws.distances import normalised_w1
from calibnb.laws.settings import Question
from calibnb.pipeline import params
from calibnb.trees.number_search import OpenLaw

STUDY = params.load(ROOT / "params.yaml")
NORMAL = stats.norm(2.0, 3.0)
LOW, HIGH = canonical.quantile_range(NORMAL)
LEVELS = (np.arange(400) + 0.5) / 400


@given(st.floats(-5, 5), st.floats(0.2, 4))
def test_a_law_that_is_only_moved_and_stretched_has_no_error_of_shape(shift: float, stretch: float) -> None:
    inside = stats.norm(2.0 + shift, 3.0 * stretch).ppf(LEVELS)
    inside = inside[(inside > LOW) & (inside < HIGH)]
    target = stats.uniform(inside.min(), np.ptp(inside))
    values = np.linspace(0, 1, 300)  # uniform answers to a uniform law
    low, high = canonical.quantile_range(target)
    place, shape = affine.nw1_parts(low + (0.3 + 0.2 * values) * (high - low), np.ones(300), target, low, high)
    assert shape < 0.02
    assert place > 0.2


def test_the_parts_are_the_whole() -> None:
    rng = np.random.default_rng(0)
    for law in (NORMAL, stats.gamma(2.0), stats.poisson(4.0)):
        low, high = canonical.quantile_range(law)
        values, masses = rng.normal(1.0, 2.0, 30), rng.uniform(0.1, 1, 30)
        place, shape = affine.nw1_parts(values, masses, law, low, high)
        assert place >= 0 and shape >= 0
        assert place + shape == pytest.approx(normalised_w1(values, masses, law, low, high), rel=1e-9)


def test_one_answer_has_the_shape_of_the_median_wherever_it_is() -> None:
    for value in (2.0, 5.0, -1.0):
        place, shape = affine.nw1_parts([value], [1.0], NORMAL, LOW, HIGH)
        assert shape == pytest.approx(1.0, abs=1e-3)
        assert place == pytest.approx(normalised_w1([value], [1.0], NORMAL, LOW, HIGH) - 1, abs=1e-3)


def test_no_map_on_a_fine_grid_does_better() -> None:
    rng = np.random.default_rng(1)
    law = stats.expon(scale=2.0)
    low, high = canonical.quantile_range(law)
    values, masses = np.clip(rng.normal(3.0, 1.0, 12), low, high), rng.uniform(0.1, 1, 12)
    _, shape = affine.nw1_parts(values, masses, law, low, high)
    grid = itertools.product(np.linspace(-12, 6, 91), np.linspace(0, 4, 81))
    # W1 by brute force: the mean distance of quantiles, at many levels.
    levels = (np.arange(4000) + 0.5) / 4000
    order = np.argsort(values)
    drawn = values[order][np.searchsorted(np.cumsum(masses[order]) / masses.sum(), levels)]
    target = np.clip(law.ppf(levels), low, high)
    scale = np.abs(target - np.median(target)).mean()
    best = min(float(np.abs(a + b * drawn - target).mean()) for a, b in grid) / scale
    assert best - 0.01 <= shape <= best + 0.001


def test_what_is_told_wrongly_is_wrong_by_what_is_said() -> None:
    spec = specs.Spec("gaussian", (("mu", 3.0), ("sigma", 2.0)), "unseen")
    assert items.wrong(spec) == " (mean = 5, standard deviation = 4)"
    cauchy = specs.Spec("cauchy", (("x0", 3.0), ("gamma", 2.0)), "unseen")
    assert items.wrong(cauchy) is None
    asked = items.asked([spec, cauchy], STUDY)
    assert [len(asked[way]) for way in items.WAYS] == [2, 2, 1]
    assert "mean = 3, standard deviation = 2)" in asked["told"][0].prompt
    assert asked["untold"][0].prompt == specs.prompt(spec, STUDY.prompt.template, STUDY.prompt.parameter_names)


def open_of(values: list[float], masses: list[float]) -> OpenLaw:
    none = np.zeros(0)
    made = SimpleNamespace(
        value=np.array(values), mass=np.array(masses), open_value=none, open_mass=none, certificate=0.01
    )
    return made  # type: ignore[return-value]


def test_parts_of_a_perfect_answer_and_of_none() -> None:
    spec = specs.Spec("gaussian", (("mu", 2.0), ("sigma", 3.0)), "unseen")
    values = NORMAL.ppf(LEVELS)
    found = measures.parts(Question(spec, ""), open_of(list(values), [0.9 / 400] * 400))
    assert found["nw1"] < 0.02 and found["valid_mass"] == pytest.approx(0.9)
    nothing = measures.parts(Question(spec, ""), open_of([], []))
    assert np.isnan(nothing["nw1"]) and nothing["valid_mass"] == 0


def test_who_follows_what_is_told_and_who_does_not() -> None:
    spec = specs.Spec("gaussian", (("mu", 2.0), ("sigma", 3.0)), "unseen")
    right = (NORMAL.ppf(LEVELS), np.ones(400))
    believes = (2.0 + 3.0 + 2.0 * (right[0] - 2.0), np.ones(400))  # the mean one deviation up, twice as wide
    found = measures.followed(Question(spec, ""), right, believes)
    assert found["followed_place"] == pytest.approx(1.0, abs=0.02)
    assert found["followed_spread"] == pytest.approx(1.0, abs=0.05)
    assert measures.followed(Question(spec, ""), right, right) == {"followed_place": 0.0, "followed_spread": 0.0}
    cauchy = specs.Spec("cauchy", (("x0", 3.0), ("gamma", 2.0)), "unseen")
    assert np.isnan(measures.followed(Question(cauchy, ""), right, believes)["followed_place"])


def frame(near: list[float], far: list[float], column: str) -> pd.DataFrame:
    rows = [("validation", f"n{i}", value) for i, value in enumerate(near)]
    rows += [("held_out", f"f{i}", value) for i, value in enumerate(far)]
    return pd.DataFrame(rows, columns=["split", "family", column])


def test_a_gap_that_closes_by_three_quarters() -> None:
    told = frame([0.5, 0.5, 0.5], [0.75, 0.75, 0.75], "nw1_told").assign(nw1_untold=9.0)
    untold = frame([0.5, 0.5, 0.5], [1.5, 1.5, 1.5], "nw1_untold").assign(nw1_told=9.0)
    (row,) = gap_closed(told, untold, [], by="", resamples=20).to_dict("records")
    assert row == {"measure": "gap_closed", "value": 0.75, "low": 0.75, "high": 0.75, "families": 3}


def test_its_interval_is_that_of_families_drawn_again() -> None:
    far = [0.8, 1.2, 2.0]
    told = frame([0.5], [0.6, 0.7, 1.0], "nw1_told")
    both = told.assign(nw1_untold=[0.5, *far])
    (row,) = gap_closed(both, None, [], by="", resamples=2000).to_dict("records")
    pairs = list(zip([0.6, 0.7, 1.0], far, strict=True))
    every = [np.median(np.array(drawn), axis=0) for drawn in itertools.product(pairs, repeat=3)]
    closed = sorted(1 - (t - 0.5) / (u - 0.5) for t, u in every)
    assert row["value"] == pytest.approx(1 - 0.2 / 0.7)
    assert row["low"] == pytest.approx(closed[0]) and row["high"] == pytest.approx(closed[-1])


def test_what_is_told_is_held_against_what_is_not_told_split_by_split() -> None:
    about = {"variant": "told", "seed": 11}
    own = frame([0.2, 0.4], [0.5, 0.5], "nw1_told").assign(nw1_untold=[0.4, 0.8, 0.5, 0.5], label=list("abcd"), **about)
    other = own.assign(nw1_untold=[0.1, 0.2, 1.0, 1.0], nw1_told=9.0, variant="hard")
    for against, ratios in (
        (None, {"validation": 0.5, "held_out": 1.0}),
        (other, {"validation": 2.0, "held_out": 0.5}),
    ):
        found = told_ratio(own, against, [], by="split", resamples=50)
        assert found.set_index("split")["value"].to_dict() == pytest.approx(ratios)
        assert found["low"].tolist() == pytest.approx(found["value"].tolist())  # every family has this ratio
        assert found["high"].tolist() == pytest.approx(found["value"].tolist())
        assert found["key"].tolist() == ["in_range", "held_out"] and set(found["measure"]) == {"told_ratio"}


def test_without_a_gap_nothing_closes() -> None:
    level = frame([0.5], [0.5], "nw1_told").assign(nw1_untold=0.5)
    assert gap_closed(level, None, [], by="", resamples=5).empty
    assert gap_closed(level[level["split"] == "held_out"], None, [], by="", resamples=5).empty
