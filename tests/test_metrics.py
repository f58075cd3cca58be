"""Measures against closed forms, brute-force integration, scipy on samples, and properties."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from calibnb.benchmarks.structured import measures
from calibnb.laws import distances, fit, parsing

CONTINUOUS = {
    "normal": stats.norm(3.5, 3.0),
    "uniform": stats.uniform(3.5, 7.0),
    "lognormal": stats.lognorm(2.0, scale=math.exp(2.5)),
    "cauchy": stats.cauchy(3.5, 3.0),
    "arcsine-like": stats.beta(0.5, 0.5),
    "beta": stats.beta(7.0, 7.0),
    "weibull": stats.weibull_min(0.5, scale=0.5),
    "student": stats.t(2.5),
    "f": stats.f(3, 5),
    "lomax": stats.lomax(1.5, scale=2.0),
    "inverse gaussian": stats.invgauss(5 / 7, scale=7.0),
    "triangular": stats.triang(0.5, 2.5, 7.0),
    "truncated normal": stats.truncnorm(-2.0, 2.0),
}
DISCRETE = {
    "binomial": stats.binom(25, 0.5),
    "geometric": stats.geom(0.125),
    "skellam": stats.skellam(10.5, 10.5),
    "bernoulli": stats.bernoulli(0.1),
    "beta-binomial": stats.betabinom(40, 6.5, 6.5),
    "hypergeometric": stats.hypergeom(100, 50, 20),
}
LAWS = CONTINUOUS | DISCRETE


def ends(law):
    return float(law.ppf(0.001)), float(law.ppf(0.999))


def clipped_atoms(law):
    """A clipped discrete law as values and probabilities, tails on the edges: by hand."""
    low, high = ends(law)
    k = np.arange(low, high + 1)
    p = law.pmf(k)
    p[0], p[-1] = law.cdf(low), law.sf(high - 1)
    return k, p


# ------------------------------------------------------------------------------------------------ scale


@pytest.mark.parametrize("name", CONTINUOUS)
def test_scale_is_the_integral_of_the_smaller_tail(name):
    law = CONTINUOUS[name]
    low, high = ends(law)
    edges = law.ppf(np.concatenate((np.linspace(0.001, 0.5, 60), np.linspace(0.5, 0.999, 60)[1:])))

    def smaller(x):
        return np.minimum(law.cdf(x), law.sf(x))

    exact = sum(integrate.fixed_quad(smaller, a, b, n=40)[0] for a, b in pairwise(edges))
    assert distances.clipped_scale(law, low, high) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("name", DISCRETE)
def test_scale_of_a_discrete_law_is_exact(name):
    law = DISCRETE[name]
    k, p = clipped_atoms(law)
    exact = np.sum(p * np.abs(k - law.median()))
    assert distances.clipped_scale(law, *ends(law)) == pytest.approx(exact, rel=1e-12)


def test_scale_closed_forms():
    # Clipping a uniform law at both per-milles: E|X - 1/2| = 1/4 - 1e-6.
    assert distances.clipped_scale(stats.uniform(), 0.001, 0.999) == pytest.approx(0.25 - 1e-6, rel=1e-9)
    z = stats.norm.ppf(0.999)
    normal = 2 * (stats.norm.pdf(0) - stats.norm.pdf(z) + z * 0.001)
    assert distances.clipped_scale(stats.norm(), -z, z) == pytest.approx(normal, rel=1e-6)
    assert distances.clipped_scale(stats.bernoulli(0.1), 0, 1) == pytest.approx(0.1, rel=1e-12)


# ------------------------------------------------------------------------------------------------ W1, clipped


def test_w1_closed_forms():
    uniform = stats.uniform()
    assert distances.w1([0.5], [1], uniform) == pytest.approx(0.25, rel=1e-9)
    assert distances.w1([0.0], [2], uniform) == pytest.approx(0.5, rel=1e-9)
    assert distances.w1([0.0, 1.0], [1, 1], uniform) == pytest.approx(0.25, rel=1e-9)
    assert distances.w1([0.25, 0.75], [3, 3], uniform) == pytest.approx(0.125, rel=1e-9)
    assert distances.w1([11.0], [1], uniform) == pytest.approx(10.5, rel=1e-9)
    assert distances.w1([0.0], [1], stats.norm()) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-6)
    assert distances.w1([0.0], [1], stats.expon(scale=3)) == pytest.approx(3.0, rel=1e-5)
    assert distances.w1([0.0], [1], stats.lomax(1.5, scale=2)) == pytest.approx(4.0, rel=1e-3)
    assert distances.w1([0, 1], [0.5, 0.5], stats.bernoulli(0.1)) == pytest.approx(0.4, rel=1e-12)
    assert distances.w1([2.5], [1], stats.bernoulli(0.1)) == pytest.approx(2.4, rel=1e-12)


@pytest.mark.parametrize(("mu", "scale"), [(0.5, 5.0), (3.5, 8.0), (1.0, 1000.0)])
def test_w1_where_scipys_far_quantiles_are_wrong_or_overflow(mu, scale):
    law = stats.invgauss(mu / scale, scale=scale)
    # From the mean, the distance is E|X - mean|, twice the integral of F up to there.
    expected = 2 * integrate.quad(law.cdf, 0, mu, epsabs=1e-12, limit=200)[0]
    assert distances.w1([mu], [1.0], law) == pytest.approx(expected, rel=1e-3)


def test_w1_without_a_mean_is_infinite_and_its_clipped_form_is_not():
    law = stats.cauchy(3.5, 3.0)
    assert distances.w1([3.5], [1], law) == math.inf
    assert distances.normalised_w1([3.5], [1], law, *ends(law)) == pytest.approx(1.0)
    assert distances.w1([math.inf], [1], stats.norm()) == math.inf
    assert distances.w1_clipped([math.inf], [1], stats.norm(), -1.0, 1.0) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_clipped_w1_against_brute_force(name):
    law = CONTINUOUS[name]
    low, high = ends(law)
    rng = np.random.default_rng(5)
    x = np.concatenate((law.rvs(40, random_state=rng), [low - 5, high + 5, law.median(), law.median()]))
    w = rng.random(len(x))
    # One integral between neighbouring break points: answers, and the quantile at which F meets each step.
    order = np.argsort(x)
    cumulative = np.concatenate(([0], np.cumsum(w[order]))) / w.sum()
    crossing = law.ppf(np.clip(cumulative, 0.001, 0.999))
    fine = law.ppf(np.linspace(0.001, 0.999, 200))
    breaks = np.unique(np.clip(np.concatenate((x, crossing, fine)), low, high))

    def gap(t):
        return np.abs(cumulative[np.searchsorted(x[order], t, side="right")] - law.cdf(t))

    exact = sum(integrate.fixed_quad(gap, a, b, n=20)[0] for a, b in pairwise(breaks))
    assert distances.w1_clipped(x, w, law, low, high) == pytest.approx(exact, rel=2e-5)


@pytest.mark.parametrize("name", DISCRETE)
def test_clipped_w1_of_a_discrete_law_equals_scipy(name):
    law = DISCRETE[name]
    low, high = ends(law)
    k, p = clipped_atoms(law)
    rng = np.random.default_rng(6)
    x = np.concatenate((rng.normal(law.mean(), 2 * law.std(), 50), [low - 7.5, high + 0.25, low, high]))
    w = rng.random(len(x))
    exact = stats.wasserstein_distance(np.clip(x, low, high), k, w, p)
    assert distances.w1_clipped(x, w, law, low, high) == pytest.approx(exact, rel=1e-9)


X = np.array([-3.0, 0.5, 1.0, 1.0, 2.25, 40.0])
W = np.array([1.0, 2.0, 1.0, 0.5, 3.0, 0.5])


@pytest.mark.parametrize("name", ["normal", "lognormal", "beta", "lomax", "weibull"])
def test_w1_against_scipy_on_a_large_quantile_sample(name):
    law = LAWS[name]
    n = 400_000
    sample = law.ppf((np.arange(n) + 0.5) / n)
    tolerance = {"lomax": 2e-2, "lognormal": 3e-3}.get(name, 1e-3)  # n quantiles miss part of a heavy tail
    assert distances.w1(X, W, law) == pytest.approx(stats.wasserstein_distance(X, sample, W), rel=tolerance)


@pytest.mark.parametrize("name", DISCRETE)
def test_w1_of_a_discrete_law_equals_scipy(name):
    law = DISCRETE[name]
    k = np.arange(law.ppf(1e-14), law.isf(1e-14) + 1)
    expected = stats.wasserstein_distance(X, k, W, law.pmf(k))
    assert distances.w1(X, W, law) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("name", LAWS)
def test_the_median_scores_one_and_the_law_itself_zero(name):
    law = LAWS[name]
    low, high = ends(law)
    assert distances.normalised_w1([law.median()], [1], law, low, high) == pytest.approx(1, rel=1e-6)
    if name in DISCRETE:
        k, p = clipped_atoms(law)
        assert distances.normalised_w1(k, p, law, low, high) == pytest.approx(0, abs=1e-12)
    else:
        n = 20_000
        quantiles = law.ppf((np.arange(n) + 0.5) / n)
        assert distances.normalised_w1(quantiles, np.ones(n), law, low, high) < 2e-3


finite = st.floats(-50, 50, allow_nan=False)
answer_laws = st.lists(st.tuples(finite, st.floats(1e-3, 1)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(answer_laws, answer_laws, st.sampled_from(["normal", "student", "binomial", "skellam"]))
def test_w1_properties(one, two, name):
    law = LAWS[name]
    low, high = ends(law)
    x, w = np.array(one).T
    y, v = np.array(two).T
    to_x, to_y = distances.w1(x, w, law), distances.w1(y, v, law)
    between = stats.wasserstein_distance(x, y, w, v)
    slack = 1e-4 * (1 + between)
    assert to_x >= 0
    assert abs(to_x - to_y) <= between + slack  # triangle inequality
    assert between <= to_x + to_y + slack
    clipped = distances.w1_clipped(x, w, law, low, high)
    assert 0 <= clipped <= to_x + slack  # clipping never lengthens a path
    assert clipped <= high - low
    # Neither order, nor splitting a mass, nor its scale matters.
    again = distances.w1_clipped(np.tile(x[::-1], 2), np.tile(w[::-1], 2) * 3, law, low, high)
    assert again == pytest.approx(clipped, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(answer_laws, st.floats(0.1, 10), st.floats(-20, 20))
def test_w1_scales_with_the_unit(one, factor, shift):
    x, w = np.array(one).T
    plain, moved = stats.norm(), stats.norm(shift, factor)
    low, high = ends(plain)
    nw1 = distances.normalised_w1(x, w, plain, low, high)
    other = distances.normalised_w1(x * factor + shift, w, moved, low * factor + shift, high * factor + shift)
    assert other == pytest.approx(nw1, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "masses"),
    [([], []), ([1.0], [0.0]), ([1.0], [-1.0]), ([math.nan], [1.0]), ([1.0, 2.0], [1.0])],
)
def test_no_law_is_an_error(values, masses):
    with pytest.raises(ValueError, match="mass"):
        distances.w1_clipped(values, masses, stats.norm(), -1, 1)


def test_an_upside_down_range_is_an_error():
    with pytest.raises(ValueError, match="low <= high"):
        distances.w1_clipped([0.0], [1.0], stats.norm(), 1, -1)


def test_a_law_that_is_all_but_certain_has_no_scale():
    law = stats.bernoulli(1e-5)
    assert ends(law) == (0.0, 0.0)
    assert distances.clipped_scale(law, 0, 0) == 0
    assert math.isnan(distances.normalised_w1([0.0], [1.0], law, 0, 0))


# ------------------------------------------------------------------------------------------------ other
# distances


@pytest.mark.parametrize("name", ["normal", "weibull", "arcsine-like"])
def test_kolmogorov_equals_scipy_on_a_sample(name):
    law = CONTINUOUS[name]
    sample = law.rvs(200, random_state=np.random.default_rng(1))
    expected = stats.kstest(sample, law.cdf).statistic
    assert distances.kolmogorov(sample, np.ones(200), law) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0, 3.25, 9.0, 30.0]), st.floats(0.01, 1)),
        min_size=1,
    ),
    st.sampled_from(sorted(DISCRETE)),
)
def test_kolmogorov_of_a_discrete_law_by_brute_force(answers, name):
    law = DISCRETE[name]
    x, w = np.array(answers).T
    # Both functions are steps: just before, at and just after every break point is all there is to see.
    points = np.concatenate((x, np.arange(-60, 120)))
    at = np.unique(np.concatenate((points - 1e-7, points, points + 1e-7)))
    answer_cdf = ((x[None, :] <= at[:, None]) * w).sum(axis=1) / w.sum()
    k = np.arange(-200, 700)
    p = np.nan_to_num(law.pmf(k))
    target_cdf = ((k[None, :] <= at[:, None]) * p).sum(axis=1)
    brute = np.abs(answer_cdf - target_cdf).max()
    assert distances.kolmogorov(x, w, law) == pytest.approx(brute, abs=1e-9)


def test_kolmogorov_of_a_point_mass():
    assert distances.kolmogorov([0.5], [1], stats.uniform()) == pytest.approx(0.5)
    assert distances.kolmogorov([2.0], [1], stats.uniform()) == pytest.approx(1.0)
    assert distances.kolmogorov([0, 1], [9, 1], stats.bernoulli(0.1)) == pytest.approx(0, abs=1e-12)


def test_moments_weigh_by_mass():
    mean, variance = distances.moments([1.0, 3.0], [3.0, 1.0])
    assert (mean, variance) == (1.5, 0.75)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
def test_total_variation_and_entropy(weights):
    p = np.array(weights) / sum(weights)
    q = p[::-1]
    assert distances.total_variation(p, p) == 0
    assert distances.total_variation(p, q) == pytest.approx(1 - np.minimum(p, q).sum(), abs=1e-12)
    assert distances.entropy(p) == pytest.approx(stats.entropy(p))
    assert distances.entropy(p) <= math.log(len(p)) + 1e-12


def test_disjoint_laws_are_one_apart_and_certainty_has_no_entropy():
    assert distances.total_variation([1, 0], [0, 1]) == 1
    assert distances.entropy([0, 1, 0]) == 0


# ------------------------------------------------------------------------------------------------ written
# answers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3.0), (" -0.25\n", -0.25), ("007", 7.0), ("-0", 0.0), ("12.50", 12.5),
        ("", None), ("3.", None), (".5", None), ("+3", None), ("1e3", None), ("1,000", None), ("3 4", None),
        ("- 3", None), ("−3", None), ("٣", None), ("about 3", None), ("3.5.1", None), ("nan", None), ("--1", None),
    ],
)  # fmt: skip
def test_parse_number(text, number):
    assert parsing.parse_number(text) == number


def test_the_share_of_bare_numbers():
    assert parsing.bare_numbers(["3", " -2.5\n", "3 apples", ""]) == 0.5


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6))
def test_every_plain_decimal_parses(x):
    assert parsing.parse_number(f"{x:f}") == float(x)


def test_validity_counts():
    texts = ["1", "2", "2.0", "2.5", "-1", "5", "six", ""]
    counts = parsing.validity(texts, (0, 4), discrete=True)
    assert counts == (8, 6, 3, 3)
    assert parsing.validity(texts, (0, 4), discrete=False) == (8, 6, 4, 2)
    assert parsing.validity([], (0, 4), discrete=True) == (0, 0, 0, 0)


def test_allowed_takes_closed_ends_and_no_infinite_integer():
    assert parsing.allowed([0, 1, 1 + 1e-12, 1.001], (0, 1), False).tolist() == [True, True, False, False]
    assert parsing.allowed([2, 2 + 1e-10, 2.1, math.inf], (0, math.inf), True).tolist() == [
        True,
        True,
        False,
        False,
    ]


# ------------------------------------------------------------------------------------------------ fit tests


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("n", [12, 200, 5000])
def test_pooled_cells_expect_enough_and_hold_everything(name, n):
    law = DISCRETE[name]
    cells, expected = fit.pooled_cells(law, n)
    assert len(expected) == len(cells) + 1
    assert expected.sum() == pytest.approx(n)
    by_hand = [
        n * (law.cdf(b) - law.cdf(a))
        for a, b in zip([-np.inf, *cells], [*cells, law.isf(1e-15)], strict=True)
        if np.isfinite(a)
    ]
    assert expected[len(expected) - len(by_hand) :] == pytest.approx(by_hand, abs=1e-6)
    if len(expected) > 1:
        assert expected.min() >= 5
    if n == 5000 and name != "bernoulli":
        # Where each integer expects enough, it is a cell of its own.
        heavy = [k for k in range(-60, 120) if n * law.pmf(k) >= 5 and n * law.pmf(k - 1) >= 5]
        assert set(heavy[:-2]) <= set(cells)


def test_fit_test_equals_chisquare_without_pooling():
    law = stats.binom(4, 0.5)
    sample = np.repeat(np.arange(5), [10, 20, 45, 15, 10])
    expected = stats.chisquare([10, 20, 45, 15, 10], law.pmf(np.arange(5)) * 100)
    result = fit.fit_test(sample, law, discrete=True)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.pvalue == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("name", ["normal", "lomax", "binomial", "geometric", "skellam", "bernoulli"])
def test_a_perfect_sampler_has_uniform_p_values(name):
    law, discrete = LAWS[name], name in DISCRETE
    rng = np.random.default_rng(2024)
    n = 1000 if discrete else 100
    pvalues = [fit.fit_test(law.rvs(n, random_state=rng), law, discrete).pvalue for _ in range(400)]
    if name == "bernoulli":
        # Two cells: the p-value is itself discrete, so only the rate of rejection can be right.
        assert 0.02 < np.mean(np.array(pvalues) < 0.05) < 0.09
    else:
        assert stats.kstest(pvalues, "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", ["normal", "binomial"])
def test_a_wrong_sampler_is_rejected(name):
    law = LAWS[name]
    shifted = law.rvs(500, random_state=np.random.default_rng(3)) + 2
    assert fit.fit_test(shifted, law, name == "binomial").pvalue < 1e-6


def test_a_fit_test_without_data_is_nan():
    assert all(math.isnan(x) for x in fit.fit_test([], stats.norm(), False))
    assert all(math.isnan(x) for x in fit.fit_test([], stats.binom(4, 0.5), True))
    assert all(math.isnan(x) for x in fit.fit_test([1, 2, 3], stats.binom(4, 0.5), True))  # one cell


# ------------------------------------------------------------------------------------------------ one setting


def test_open_measures_by_hand():
    law = stats.binom(4, 0.5)
    values, masses = np.array([2.0, 1.0, 2.5, 9.0, 2.0]), np.array([0.3, 0.1, 0.05, 0.05, 0.1])
    got = measures.open_measures(values, masses, law, discrete=True, support=(0, 4), low=0, high=4)
    assert got["number_mass"] == pytest.approx(0.6)
    assert got["valid_mass"] == pytest.approx(0.5)
    assert got["support_violation"] == pytest.approx(0.1)
    assert got["top5_mass"] == pytest.approx(1.0)
    assert got["mean_error"] == pytest.approx(abs((0.8 + 0.1 + 0.125 + 0.45) / 0.6 - 2))
    clipped = stats.wasserstein_distance(np.minimum(values, 4), np.arange(5), masses, law.pmf(np.arange(5)))
    assert got["nw1"] == pytest.approx(clipped / 0.75)  # E|X - 2| = 0.75
    assert got["w1"] == pytest.approx(stats.wasserstein_distance(values, np.arange(5), masses, law.pmf(np.arange(5))))
    assert got["kolmogorov"] == pytest.approx(distances.kolmogorov(values, masses, law))


def test_open_measures_without_a_number_or_a_moment():
    law = stats.cauchy()
    low, high = ends(law)
    none = measures.open_measures([], [], law, discrete=False, support=(-np.inf, np.inf), low=low, high=high)
    assert none["number_mass"] == none["valid_mass"] == 0
    assert math.isnan(none["nw1"]) and math.isnan(none["top5_mass"])
    some = measures.open_measures([0.0], [0.2], law, discrete=False, support=(-np.inf, np.inf), low=low, high=high)
    assert some["nw1"] == pytest.approx(1)
    assert math.isnan(some["mean_error"]) and math.isnan(some["variance_error"])
    assert some["w1"] == math.inf
    assert set(none) == set(some)


def test_top5_merges_equal_values():
    values = np.array([1, 1, 2, 3, 4, 5, 6], float)
    law = stats.norm()
    got = measures.open_measures(values, np.ones(7) / 7, law, discrete=False, support=(-9, 9), low=-3, high=3)
    assert got["top5_mass"] == pytest.approx(6 / 7)


def test_sampled_measures_agree_with_the_open_ones():
    law = stats.binom(4, 0.5)
    texts = ["2", "2", "1", "9", "no idea", "2.0", "3", "2.5"]
    got = measures.sampled_measures(texts, law, discrete=True, support=(0, 4), low=0, high=4)
    same = measures.open_measures(
        [2, 2, 1, 9, 2, 3, 2.5], np.ones(7) / 8, law, discrete=True, support=(0, 4), low=0, high=4
    )
    assert {k: got[k] for k in same} == pytest.approx(same)
    assert got["draws"] == 8
    assert got["valid_mass"] == pytest.approx(5 / 8)


def test_spellings() -> None:
    assert parsing.spellings(["heads"]) == ("heads", "heads.", "Heads", "Heads.", "HEADS", "HEADS.")
    assert parsing.spellings(["7"]) == ("7", "7.")
    assert set(parsing.spellings(["1.00"])) == {"1.00", "1.0", "1", "1.00.", "1.0.", "1."}
    assert set(parsing.spellings(["0.50"])) == {"0.50", "0.5", "0.50.", "0.5."}
    assert set(parsing.spellings(["10"])) == {"10", "10."}
    assert {"bike", "by bike", "By bike.", "Bike"} <= set(parsing.spellings(["bike", "by bike"]))
    assert "on Time" not in parsing.spellings(["on time"]) and "On time" in parsing.spellings(["on time"])
