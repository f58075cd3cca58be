"""Settings: how many, which split, and that the prompt says what the law is."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calibnb.errors import UserError
from calibnb.laws import specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.family import rounded
from calibnb.laws.grids import FamilyGrid
from calibnb.pipeline import params

TEMPLATE = "One number from {distribution}: {parameters}"


@pytest.fixture(scope="module")
def study(pytestconfig):
    return params.load(pytestconfig.rootpath / "params.yaml")


@pytest.fixture(scope="module")
def settings(study):
    return specs.build(study.families, 0.1, 4)


def grid(**blocks) -> FamilyGrid:
    return FamilyGrid.model_validate({"selected": [], **blocks})


def test_counts_of_the_study(settings):
    split = Counter(s.split for s in settings)
    assert split["train"] + split["validation"] == 1988
    # 17 unseen and 2 held-out selected rows lie off the grid.
    assert (split["unseen"], split["held_out"]) == (591 + 17, 92 + 2)
    assert Counter(s.split for s in settings if s.selected) == {"unseen": 24, "held_out": 18}
    assert len({s.family for s in settings}) == 30
    assert len({s.label for s in settings}) == len(settings)


def test_every_family_keeps_about_a_tenth_for_validation(settings):
    for family in dict.fromkeys(s.family for s in settings if s.split == "train"):
        held_back = sum(s.split == "validation" for s in settings if s.family == family)
        total = held_back + sum(s.split == "train" for s in settings if s.family == family)
        assert held_back == max(1, round(0.1 * total))


def test_validation_does_not_depend_on_other_families_or_keys(study, settings):
    some = {name: study.families[name] for name in ("poisson", "gamma", "beta")}
    some["beta"] = some["beta"].model_copy(update={"unseen": None, "selected": ()})
    alone = specs.build(some, 0.1, 4)
    for family in ("gamma", "beta"):
        pick = [s for s in settings if s.family == family and s.split == "validation"]
        assert [s for s in alone if s.family == family and s.split == "validation"] == pick


def test_a_larger_share_keeps_the_validation_settings(study, settings):
    more = {s.label for s in specs.build(study.families, 0.3, 4) if s.split == "validation"}
    assert {s.label for s in settings if s.split == "validation"} < more


def test_order_is_family_then_grid_then_selected():
    families = {
        "gaussian": grid(
            train={"mu": [0, 1], "sigma": {"lin": [1, 2, 2]}},
            unseen={"mu": [3], "sigma": [4, 5]},
            selected=[{"mu": 3, "sigma": 5}, {"mu": 9, "sigma": 9}],
        ),
        "bernoulli": grid(held_out={"p": [0.5]}),
    }
    settings = specs.build(families, 0.25, 4)
    assert [s.label for s in settings] == [
        "gaussian(mu=0, sigma=1)",
        "gaussian(mu=0, sigma=2)",
        "gaussian(mu=1, sigma=1)",
        "gaussian(mu=1, sigma=2)",
        "gaussian(mu=3, sigma=4)",
        "gaussian(mu=3, sigma=5)",
        "gaussian(mu=9, sigma=9)",
        "bernoulli(p=0.5)",
    ]
    assert Counter(s.split for s in settings[:4]) == {"train": 3, "validation": 1}
    assert [(s.split, s.selected) for s in settings[4:]] == [
        ("unseen", False),
        ("unseen", True),
        ("unseen", True),
        ("held_out", False),
    ]


def test_a_single_train_setting_stays_in_train():
    assert [s.split for s in specs.build({"poisson": grid(train={"lambda": [2]})}, 0.5, 4)] == ["train"]


@given(st.floats(-1e6, 1e6, allow_nan=False), st.integers(1, 4))
def test_numbers_are_short_plain_and_read_back(x, digits):
    y = rounded(x, digits)
    text = specs.number(y)
    assert re.fullmatch(r"-?\d+(\.\d*[1-9])?", text)
    assert text != "-0"
    assert float(text) == y


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (3.0, "3"),
        (-0.0, "0"),
        (0.5743491774985174, "0.5743"),
        (-0.7999999999999998, "-0.8"),
        (1.234e-5, "0.00001234"),
        (12345.0, "12345"),
        (1e21, "1" + "0" * 21),
        (99.99999, "100"),
    ],
)
def test_numbers(x, text):
    assert specs.number(x) == text


@pytest.mark.parametrize("digits", [3, 4])
def test_the_prompt_says_the_parameters_of_the_law(study, digits):
    for spec in specs.build(study.families, 0.1, digits):
        text = specs.prompt(spec, TEMPLATE, "symbols")
        head, _, tail = text.partition(": ")
        assert head == f"One number from {FAMILIES[spec.family].title}"
        read = {name: float(value) for name, value in (item.split(" = ") for item in tail.split(", "))}
        law = FAMILIES[spec.family].frozen(**read)
        assert law.args == spec.law.args
        assert law.kwds == spec.law.kwds


def test_prompt_wording():
    spec = specs.Spec("gaussian", (("mu", 3.5), ("sigma", 3.0)), "unseen", True)
    assert specs.prompt(spec, TEMPLATE, "words") == ("One number from Gaussian: mean = 3.5, standard deviation = 3")
    assert specs.prompt(spec, TEMPLATE, "symbols") == "One number from Gaussian: mu = 3.5, sigma = 3"
    assert spec.label == "gaussian(mu=3.5, sigma=3)"


def test_continuous_parameters_stay_inside_the_train_ranges(study):
    rng = np.random.default_rng(0)
    for family, family_grid in study.families.items():
        if family_grid.train is None:
            continue
        corners = specs.build({family: family_grid.model_copy(update={"unseen": None, "selected": ()})}, 0.1, 4)
        low = {n: min(dict(s.parameters)[n] for s in corners) for n, _ in corners[0].parameters}
        high = {n: max(dict(s.parameters)[n] for s in corners) for n, _ in corners[0].parameters}
        for _ in range(50):
            spec = specs.continuous(family, family_grid.train, rng, 4)
            assert (spec.family, spec.split, spec.selected) == (family, "train", False)
            for (name, value), parameter in zip(spec.parameters, FAMILIES[family].parameters, strict=True):
                # The draw of a log axis may round across its end by one unit in the fourth digit.
                assert low[name] - 1e-3 * abs(low[name]) <= value <= high[name] + 1e-3 * abs(high[name])
                assert value.is_integer() or not parameter.integral


def test_continuous_parameters_follow_their_axes():
    families = {
        "gaussian": grid(train={"mu": {"lin": [-2, 2, 3]}, "sigma": {"log": [0.1, 10, 3]}}),
        "f_distribution": grid(train={"d1": [3, 5], "d2": [2.5, 7.5]}),
    }
    rng = np.random.default_rng(1)
    draws = [dict(specs.continuous("gaussian", families["gaussian"].train, rng, 4).parameters) for _ in range(2000)]
    mu = [d["mu"] for d in draws]
    sigma = [math.log(d["sigma"]) for d in draws]
    assert stats.kstest(mu, stats.uniform(-2, 4).cdf).pvalue > 1e-3
    assert stats.kstest(sigma, stats.uniform(math.log(0.1), math.log(100)).cdf).pvalue > 1e-3
    draws = [
        dict(specs.continuous("f_distribution", families["f_distribution"].train, rng, 4).parameters)
        for _ in range(300)
    ]
    assert {d["d1"] for d in draws} == {3, 4, 5}
    assert len({d["d2"] for d in draws}) > 250


def test_continuous_parameters_avoid_what_they_are_told():
    axes = grid(train={"n": [1, 3], "p": [0.5]}).train
    only = (("n", 2.0), ("p", 0.5))
    avoid = {(("n", 1.0), ("p", 0.5)), (("n", 3.0), ("p", 0.5))}
    rng = np.random.default_rng(2)
    assert {specs.continuous("binomial", axes, rng, 4, avoid).parameters for _ in range(20)} == {only}
    with pytest.raises(UserError, match=r"families\.binomial\.train: must leave settings"):
        specs.continuous("binomial", axes, rng, 4, avoid | {only})


def test_choose(settings):
    assert len(specs.choose(settings, "held_out", "all")) == 94
    assert specs.choose(settings, "unseen", "none") == []
    assert len(specs.choose(settings, "unseen", "selected")) == 24
    # One setting a family: with 24 families these are the selected ones.
    assert specs.choose(settings, "unseen", 24) == specs.choose(settings, "unseen", "selected")
    with pytest.raises(UserError, match="must be at most 94 settings, got 95"):
        specs.choose(settings, "held_out", 95)


@pytest.mark.parametrize("count", [1, 5, 6, 13, 50, 94])
def test_a_number_is_spread_evenly_in_order(settings, count):
    pool = specs.choose(settings, "held_out", "all")
    chosen = specs.choose(settings, "held_out", count)
    assert len(chosen) == count
    assert [s for s in pool if s in set(chosen)] == chosen
    size = Counter(s.family for s in pool)
    share = Counter(s.family for s in chosen)
    # A family gets fewer than another only if it has no more to give, or by one.
    most = max(share.values())
    assert all(share[family] >= min(size[family], most - 1) for family in size)
    smaller = specs.choose(settings, "held_out", count - 1) if count > 1 else []
    assert set(smaller) < set(chosen)


def test_evenly_spaced_items():
    assert [specs.evenly("abcdefg", n) for n in (1, 2, 3)] == [["a"], ["a", "d"], ["a", "c", "e"]]
    for size, count in itertools.product(range(1, 12), range(1, 12)):
        places = specs.evenly(range(size), count)
        assert len(places) == min(size, count) and places[0] == 0
        gaps = {b - a for a, b in itertools.pairwise([*places, size])}
        assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1
