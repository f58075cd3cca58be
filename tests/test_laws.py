"""Answer laws against a slow, literal reading of their definition and against scipy at every grid point."""

from __future__ import annotations

import math
import re
import tracemalloc
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from calibnb.errors import UserError
from calibnb.laws import canonical, specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.params import SpaceParams
from calibnb.pipeline import params

LINE = (-np.inf, np.inf)
CANONICAL = re.compile(r"-?\d+(\.\d+)?")


def space(discretisation="coarsen", num_decimals=5, max_bins=1001) -> SpaceParams:
    return SpaceParams(discretisation=discretisation, num_decimals=num_decimals, max_bins=max_bins)


def continuous(law, **keys) -> canonical.AnswerLaw:
    return canonical.answer_law(
        law, False, LINE, **{"discretisation": "coarsen", "num_decimals": 5, "max_bins": 1001} | keys
    )


@pytest.fixture(scope="module")
def study(pytestconfig):
    return params.load(pytestconfig.rootpath / "params.yaml")


@pytest.fixture(scope="module")
def every_setting(study):
    return specs.build(study.families, 0.1, 4)


def check_strings(answers: canonical.AnswerLaw, max_bins: int) -> None:
    assert 1 <= len(answers.strings) == len(answers.values) == len(answers.probabilities) <= max_bins
    assert all(map(CANONICAL.fullmatch, answers.strings))
    assert [float(text) for text in answers.strings] == answers.values.tolist()
    assert len({len(text.partition(".")[2]) for text in answers.strings}) == 1
    assert (np.diff(answers.values) > 0).all()
    assert not any(text.startswith("-") and not text.strip("-0.") for text in answers.strings)
    assert (answers.probabilities > 0).all()
    assert abs(answers.probabilities.sum() - 1) < 1e-12


@pytest.mark.parametrize("discretisation", ["coarsen", "thin"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_setting(name, discretisation, every_setting):
    members = [s for s in every_setting if s.family == name]
    # thin differs in few lines, so fewer settings do for it
    for spec in members if discretisation == "coarsen" else members[::5]:
        law = spec.law
        answers = canonical.of_spec(spec, space(discretisation))
        check_strings(answers, 1001)
        low, high = spec.support
        assert low <= answers.values[0] and answers.values[-1] <= high
        # The sum up to a point is the law's mass up to the middle of the gap above it.
        middle = (answers.values[1:] + answers.values[:-1]) / 2
        middle = np.floor(middle) if spec.discrete else middle  # scipy's hypergeometric cdf wants integers
        assert np.abs(np.cumsum(answers.probabilities)[:-1] - law.cdf(middle)).max(initial=0) < 1e-9
        q_low, q_high = law.ppf(canonical.TAILS)
        if spec.discrete:
            assert answers.values[0] == (q_low if np.isinf(low) else low)
            assert answers.values[-1] == (q_high if np.isinf(high) else high)
            assert (np.diff(answers.values) == 1).all()
        else:
            step = 10.0 ** -len(answers.strings[0].partition(".")[2])
            gap = np.diff(answers.values)
            if discretisation == "coarsen":
                step = gap[0]  # also where steps are 10, 100, ...
                assert gap == pytest.approx(step, rel=1e-9)
            assert q_low - 1e-5 * step <= answers.values[0] < q_low + step * 1.00001
            assert q_high - step * 1.00001 < answers.values[-1] <= q_high + 1e-5 * step


def slow_law(law, discretisation, num_decimals, max_bins):
    """The definition, word by word, in decimal arithmetic."""
    low, high = (Decimal(float(q)) for q in law.ppf([0.001, 0.999]))
    decimals = num_decimals
    while True:
        step = Decimal(1).scaleb(-decimals)
        first = (low / step).to_integral_value(ROUND_CEILING)
        last = (high / step).to_integral_value(ROUND_FLOOR)
        points = [(first + i) * step for i in range(int(last - first) + 1)]
        if discretisation == "thin" or len(points) <= max_bins:
            break
        decimals -= 1
    if len(points) > max_bins:
        ideal = [Fraction(i * (len(points) - 1), max_bins - 1) for i in range(max_bins)]
        points = [points[math.floor(x + Fraction(1, 2))] for x in ideal]
    edges = [-np.inf] + [float((a + b) / 2) for a, b in pairwise(points)] + [np.inf]
    mass = [law.cdf(b) - law.cdf(a) for a, b in pairwise(edges)]
    texts = [format(p if p else abs(p), f".{max(decimals, 0)}f") for p in points]
    return texts, mass


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-20, 20),
    st.floats(0.05, 30),
    st.sampled_from(["thin", "coarsen"]),
    st.integers(0, 3),
    st.integers(20, 300),
)
def test_against_the_definition_word_by_word(mu, sigma, discretisation, num_decimals, max_bins):
    law = stats.norm(mu, sigma)
    low, high = law.ppf(canonical.TAILS)
    assume(not any(abs(q * 1000 - round(q * 1000)) < 1e-4 for q in (low, high)))  # ties are a choice
    texts, mass = slow_law(law, discretisation, num_decimals, max_bins)
    assume(texts)
    answers = continuous(law, discretisation=discretisation, num_decimals=num_decimals, max_bins=max_bins)
    assert answers.strings == texts
    assert answers.probabilities == pytest.approx(mass, abs=1e-12)


def test_uniform_by_hand():
    answers = continuous(stats.uniform(0, 1), num_decimals=1)
    assert answers.strings == [f"0.{d}" for d in range(1, 10)]
    assert answers.probabilities == pytest.approx([0.15] + [0.1] * 7 + [0.15])


@pytest.mark.parametrize(
    ("low", "first", "last"), [(0, "0.001", "0.999"), (4.2, "4.201", "5.199"), (4.8, "4.801", "5.799")]
)
def test_a_quantile_on_the_grid_counts(low, first, last):
    # In floats 4.201 comes out above the grid point and 5.799 below it.
    answers = continuous(stats.uniform(low, 1), num_decimals=3)
    assert (answers.strings[0], answers.strings[-1], len(answers.strings)) == (first, last, 999)


def test_coarsen_goes_to_tens_where_units_do_not_fit():
    answers = continuous(stats.norm(0, 1000), max_bins=100)
    assert answers.strings[:2] == ["-3000", "-2900"]
    assert answers.strings[30] == "0"
    check_strings(answers, 100)


def test_there_is_no_minus_zero():
    answers = continuous(stats.norm(0, 1), num_decimals=2)
    assert "0.00" in answers.strings
    assert "-0.00" not in answers.strings


def test_thin_never_builds_the_whole_grid():
    law = stats.lognorm(2.25, scale=np.exp(3.0))
    tracemalloc.start()
    answers = canonical.answer_law(law, False, (0, np.inf), discretisation="thin", num_decimals=5, max_bins=1001)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(answers.strings) == 1001
    assert float(answers.strings[-1]) == pytest.approx(law.ppf(0.999), abs=1e-5)
    assert peak < 2_000_000  # the grid has 2e9 points


def test_thin_points_are_evenly_spaced_by_index():
    answers = continuous(stats.norm(0, 1), discretisation="thin", num_decimals=4, max_bins=101)
    index = np.rint(answers.values * 10**4)
    assert len(index) == 101
    assert np.ptp(np.diff(index)) <= 1


def test_discrete_tails_go_to_both_edges():
    law = stats.skellam(10.5, 10.5)
    answers = canonical.answer_law(law, True, LINE, discretisation="thin", num_decimals=5, max_bins=1001)
    low, high = (int(q) for q in law.ppf([0.001, 0.999]))
    assert answers.strings == [str(k) for k in range(low, high + 1)]
    assert answers.probabilities[0] == pytest.approx(law.cdf(low), rel=1e-10)
    assert answers.probabilities[-1] == pytest.approx(law.sf(high - 1), rel=1e-10)
    assert answers.probabilities[1:-1] == pytest.approx(law.pmf(np.arange(low + 1, high)), rel=1e-12)


def test_a_discrete_support_is_never_cut():
    law, support = stats.binom(30, 0.5), (0.0, 30.0)
    keys = {"discretisation": "thin", "num_decimals": 0}
    assert len(canonical.answer_law(law, True, support, max_bins=31, **keys).strings) == 31
    with pytest.raises(UserError, match="the 31 integers from 0 to 30 must fit max_bins, got 30"):
        canonical.answer_law(law, True, support, max_bins=30, **keys)


def test_answers_without_mass_are_left_out():
    sure = specs.Spec("bernoulli", (("p", 1.0),), "held_out")
    answers = canonical.of_spec(sure, space())
    assert (answers.strings, answers.probabilities.tolist()) == (["1"], [1.0])


def test_errors_name_the_setting():
    narrow = specs.Spec("gaussian", (("mu", 0.5), ("sigma", 0.01)), "train")
    with pytest.raises(UserError, match=r"^gaussian\(mu=0.5, sigma=0.01\): no number with 0 decimals lies between"):
        canonical.of_spec(narrow, space(num_decimals=0))
    far = specs.Spec("gaussian", (("mu", 1e14), ("sigma", 1.0)), "train")
    with pytest.raises(UserError, match=r"must be less than 2\*\*53 steps of 5 decimals from 0"):
        canonical.of_spec(far, space("thin"))


@settings(max_examples=60, deadline=None)
@given(st.floats(-50, 50), st.floats(1e-3, 1e3), st.sampled_from(["thin", "coarsen"]), st.integers(0, 2))
def test_fits_tells_whether_a_law_can_be_made(mu, sigma, discretisation, num_decimals):
    law = stats.norm(mu, sigma)
    keys = {"discretisation": discretisation, "num_decimals": num_decimals, "max_bins": 50}
    if canonical.fits(*canonical.quantile_range(law), **keys):
        check_strings(continuous(law, **keys), 50)
    else:
        with pytest.raises(UserError):
            continuous(law, **keys)


def test_quantile_range():
    assert canonical.quantile_range(stats.uniform(2, 1)) == pytest.approx((2.001, 2.999))


@pytest.mark.parametrize(
    ("law", "support", "ends"),
    [
        (stats.poisson(4), (0, np.inf), (0, 11)),
        (stats.geom(0.5), (1, np.inf), (1, 10)),
        (stats.binom(9, 0.5), (0, 9), (0, 9)),
    ],
)
def test_integer_range(law, support, ends):
    assert canonical.integer_range(law, support) == ends
