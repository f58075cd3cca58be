"""The family table against densities written out by hand."""

from __future__ import annotations

import math
from math import comb, exp, factorial, gamma, lgamma, log, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibnb.laws import specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.family import Family, Parameter, ParameterError, rounded
from calibnb.pipeline import params


def beta_function(a, b):
    return exp(lgamma(a) + lgamma(b) - lgamma(a + b))


def phi(z):
    return exp(-z * z / 2) / sqrt(2 * pi)


def big_phi(z):
    return (1 + math.erf(z / sqrt(2))) / 2


def bessel_i(k, x):
    return sum((x / 2) ** (2 * m + abs(k)) / (factorial(m) * factorial(m + abs(k))) for m in range(60))


# family: (parameters, density or probability at x, points to try)
DENSITIES = {
    "uniform": ({"a": -2, "b": 3}, lambda x, a, b: 1 / (b - a), [-1.5, 0, 2.9]),
    "gaussian": ({"mu": 1.5, "sigma": 2}, lambda x, mu, sigma: phi((x - mu) / sigma) / sigma, [-3, 0, 4]),
    "beta": (
        {"alpha": 2.5, "beta": 0.7},
        lambda x, alpha, beta: x ** (alpha - 1) * (1 - x) ** (beta - 1) / beta_function(alpha, beta),
        [0.1, 0.5, 0.9],
    ),
    "binomial": ({"n": 7, "p": 0.3}, lambda x, n, p: comb(n, x) * p**x * (1 - p) ** (n - x), [0, 3, 7]),
    "exponential": ({"lambda": 2.5}, lambda x, **p: p["lambda"] * exp(-p["lambda"] * x), [0.1, 1, 2]),
    "geometric": ({"p": 0.3}, lambda x, p: p * (1 - p) ** (x - 1), [1, 2, 9]),
    "negative_binomial": (
        {"r": 4, "p": 0.3},
        lambda x, r, p: comb(x + r - 1, x) * p**r * (1 - p) ** x,
        [0, 1, 12],
    ),
    "lognormal": (
        {"mu": 0.5, "sigma": 1.2},
        lambda x, mu, sigma: phi((log(x) - mu) / sigma) / (sigma * x),
        [0.2, 1, 7],
    ),
    "triangular": (
        {"a": -1, "c": 2, "b": 4},
        lambda x, a, c, b: 2 * (x - a) / ((b - a) * (c - a)) if x < c else 2 * (b - x) / ((b - a) * (b - c)),
        [-0.5, 1, 3],
    ),
    "rayleigh": ({"sigma": 2}, lambda x, sigma: x / sigma**2 * exp(-((x / sigma) ** 2) / 2), [0.5, 2, 5]),
    "cauchy": (
        {"x0": 1, "gamma": 2},
        lambda x, x0, gamma: 1 / (pi * gamma * (1 + ((x - x0) / gamma) ** 2)),
        [-4, 1, 9],
    ),
    "student_t": (
        {"nu": 3.5},
        lambda x, nu: gamma((nu + 1) / 2) / (sqrt(nu * pi) * gamma(nu / 2)) * (1 + x * x / nu) ** (-(nu + 1) / 2),
        [-2, 0, 1],
    ),
    "chi_square": (
        {"nu": 5},
        lambda x, nu: x ** (nu / 2 - 1) * exp(-x / 2) / (2 ** (nu / 2) * gamma(nu / 2)),
        [0.5, 3, 9],
    ),
    "f_distribution": (
        {"d1": 5, "d2": 8},
        lambda x, d1, d2: (
            (d1 / d2) ** (d1 / 2)
            * x ** (d1 / 2 - 1)
            * (1 + d1 * x / d2) ** (-(d1 + d2) / 2)
            / beta_function(d1 / 2, d2 / 2)
        ),
        [0.3, 1, 4],
    ),
    "gamma": (
        {"alpha": 2.5, "beta": 3},
        lambda x, alpha, beta: x ** (alpha - 1) * exp(-x / beta) / (gamma(alpha) * beta**alpha),
        [0.5, 6, 20],
    ),
    "laplace": ({"mu": 1, "b": 2}, lambda x, mu, b: exp(-abs(x - mu) / b) / (2 * b), [-3, 1, 4]),
    "logistic": (
        {"mu": 1, "s": 2},
        lambda x, mu, s: exp(-(x - mu) / s) / (s * (1 + exp(-(x - mu) / s)) ** 2),
        [-3, 1, 4],
    ),
    "pareto": ({"alpha": 3, "xm": 2}, lambda x, alpha, xm: alpha * xm**alpha / x ** (alpha + 1), [2.1, 3, 9]),
    "hypergeometric": (
        {"M": 30, "K": 12, "N": 7},
        lambda x, M, K, N: comb(K, x) * comb(M - K, N - x) / comb(M, N),
        [0, 3, 7],
    ),
    "gumbel": (
        {"mu": 1, "beta": 2},
        lambda x, mu, beta: exp(-(x - mu) / beta - exp(-(x - mu) / beta)) / beta,
        [-3, 1, 8],
    ),
    "skellam": (
        {"mu1": 2, "mu2": 3.5},
        lambda x, mu1, mu2: exp(-mu1 - mu2) * (mu1 / mu2) ** (x / 2) * bessel_i(x, 2 * sqrt(mu1 * mu2)),
        [-5, 0, 3],
    ),
    "beta_binomial": (
        {"n": 9, "alpha": 1.5, "beta": 3},
        lambda x, n, alpha, beta: comb(n, x) * beta_function(x + alpha, n - x + beta) / beta_function(alpha, beta),
        [0, 4, 9],
    ),
    "lomax": (
        {"alpha": 3, "lambda": 2},
        lambda x, **p: p["alpha"] / p["lambda"] * (1 + x / p["lambda"]) ** (-p["alpha"] - 1),
        [0.1, 1, 6],
    ),
    "inverse_gaussian": (
        {"mu": 2, "lambda": 3},
        lambda x, **p: (
            sqrt(p["lambda"] / (2 * pi * x**3)) * exp(-p["lambda"] * (x - p["mu"]) ** 2 / (2 * p["mu"] ** 2 * x))
        ),
        [0.5, 2, 6],
    ),
    "bernoulli": ({"p": 0.3}, lambda x, p: p if x else 1 - p, [0, 1]),
    "poisson": (
        {"lambda": 4},
        lambda x, **p: exp(-p["lambda"]) * p["lambda"] ** x / factorial(x),
        [0, 4, 11],
    ),
    "weibull": (
        {"k": 1.5, "lambda": 2},
        lambda x, **p: p["k"] / p["lambda"] * (x / p["lambda"]) ** (p["k"] - 1) * exp(-((x / p["lambda"]) ** p["k"])),
        [0.3, 2, 5],
    ),
    "maxwell": (
        {"scale": 1.5},
        lambda x, scale: sqrt(2 / pi) * x**2 * exp(-((x / scale) ** 2) / 2) / scale**3,
        [0.5, 2, 4],
    ),
    "chi": (
        {"df": 3.5},
        lambda x, df: x ** (df - 1) * exp(-x * x / 2) / (2 ** (df / 2 - 1) * gamma(df / 2)),
        [0.5, 2, 3],
    ),
    "truncnorm": (
        {"mu": 1, "sigma": 1.5, "lower": -1, "upper": 2},
        lambda x, mu, sigma, lower, upper: (
            phi((x - mu) / sigma) / sigma / (big_phi((upper - mu) / sigma) - big_phi((lower - mu) / sigma))
        ),
        [-0.9, 0, 1.9],
    ),
}


def test_there_are_thirty_families_told_apart_by_name_and_title():
    assert len(FAMILIES) == 30
    assert len({family.title for family in FAMILIES.values()}) == 30
    assert all(name == family.name for name, family in FAMILIES.items())
    assert set(DENSITIES) == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_density_is_the_one_written_out_by_hand(name):
    parameters, density, points = DENSITIES[name]
    family = FAMILIES[name]
    assert list(parameters) == [p.name for p in family.parameters]
    law = family.frozen(**parameters)
    ours = law.pmf(points) if family.discrete else law.pdf(points)
    assert ours == pytest.approx([density(x, **parameters) for x in points], rel=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_words_of_a_family_are_plain_and_differ(name):
    words = [p.words for p in FAMILIES[name].parameters]
    assert len(set(words)) == len(words)
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz ") for text in words)


@pytest.fixture(scope="module")
def settings(pytestconfig):
    study = params.load(pytestconfig.rootpath / "params.yaml")
    return specs.build(study.families, 0.1, 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_support_of_every_setting_is_that_of_its_law(name, settings):
    for spec in (s for s in settings if s.family == name):
        assert spec.support == pytest.approx([float(x) for x in spec.law.support()], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_laws_and_supports_take_arrays(name):
    parameters, _, points = DENSITIES[name]
    family = FAMILIES[name]
    twice = {key: np.array([value, value], dtype=float) for key, value in parameters.items()}
    one = family.frozen(**parameters).cdf(points[1])
    assert family.frozen(**twice).cdf(points[1]) == pytest.approx([one, one], rel=1e-12)
    low, high = family.support(**parameters)
    lows, highs = family.support(**twice)
    assert np.broadcast_to(lows, 2).tolist() == [low, low]
    assert np.broadcast_to(highs, 2).tolist() == [high, high]


def test_dependent_parameters_are_mapped_then_rounded():
    third = 1 / 3
    assert FAMILIES["uniform"].printed({"a": third, "width": third}) == {"a": 0.3333, "b": 0.6667}
    assert FAMILIES["uniform"].printed({"a": -1.6, "width": 1.6}) == {"a": -1.6, "b": 0.0}
    assert FAMILIES["triangular"].printed({"a": 2.5, "width": 7.0, "mode_fraction": 0.1}) == {
        "a": 2.5,
        "c": 3.2,
        "b": 9.5,
    }
    assert FAMILIES["hypergeometric"].printed({"M": 50, "N": 5, "success_fraction": 0.65}) == {
        "M": 50,
        "K": 32,
        "N": 5,
    }
    assert FAMILIES["gaussian"].printed({"mu": 0.4 - 0.4, "sigma": 0.5743491774985174}, 2) == {
        "mu": 0.0,
        "sigma": 0.57,
    }


OUTSIDE = [
    ("gaussian", {"mu": 0, "sigma": 0}, "sigma", "must be > 0, got 0"),
    ("gaussian", {"mu": 0, "sigma": -1}, "sigma", "must be > 0, got -1"),
    ("gaussian", {"mu": math.inf, "sigma": 1}, "mu", "must be a finite number, got inf"),
    ("gaussian", {"mu": 0, "sigma": math.nan}, "sigma", "must be > 0, got nan"),
    ("bernoulli", {"p": 1.5}, "p", "must be in [0, 1], got 1.5"),
    ("geometric", {"p": 0}, "p", "must be in (0, 1), got 0"),
    ("geometric", {"p": 1}, "p", "must be in (0, 1), got 1"),
    ("binomial", {"n": 2.5, "p": 0.5}, "n", "must be an integer >= 1, got 2.5"),
    ("binomial", {"n": 0, "p": 0.5}, "n", "must be an integer >= 1, got 0"),
    ("triangular", {"a": 0, "width": 1, "mode_fraction": 1}, "mode_fraction", "must be in (0, 1), got 1"),
    ("triangular", {"a": 1000, "width": 1, "mode_fraction": 0.1}, "a", "must be < c = 1000, got 1000"),
    ("uniform", {"a": 1000, "width": 0.1}, "a", "must be < b = 1000, got 1000"),
    ("truncnorm", {"mu": 0, "sigma": 1, "lower": 2, "upper": 1}, "lower", "must be < upper = 1, got 2"),
    ("hypergeometric", {"M": 10, "N": 11, "success_fraction": 0.5}, "N", "must be <= M = 10, got 11"),
]


@pytest.mark.parametrize(("name", "point", "parameter", "problem"), OUTSIDE)
def test_points_outside_the_domain_are_named(name, point, parameter, problem):
    with pytest.raises(ParameterError) as caught:
        FAMILIES[name].printed(point)
    assert (caught.value.parameter, caught.value.problem) == (parameter, problem)


def bounded_parameters() -> list[tuple[Family, Parameter]]:
    return [(f, p) for f in FAMILIES.values() for p in f.grid_parameters if p.low > -math.inf]


@pytest.mark.parametrize(("family", "parameter"), bounded_parameters(), ids=lambda x: x.name)
def test_every_bounded_parameter_is_checked_from_both_sides(family, parameter):
    parameter.check(1 if parameter.high > 1 or not parameter.open_high else 0.5)
    for bad in [parameter.low - 1] + ([parameter.high + 1] if parameter.high < math.inf else []):
        with pytest.raises(ParameterError, match="must be"):
            parameter.check(bad)
    if parameter.open_low:
        with pytest.raises(ParameterError):
            parameter.check(parameter.low)
    else:
        parameter.check(parameter.low)


@given(st.floats(min_value=1e-6, max_value=1e9), st.integers(1, 4), st.booleans())
def test_rounding_keeps_so_many_digits(x, digits, negative):
    x = -x if negative else x
    y = rounded(x, digits)
    assert abs(y - x) <= 0.5000001 * 10.0 ** (math.floor(math.log10(abs(x))) - digits + 1)
    assert len(f"{y:.12e}".split("e")[0].lstrip("-").replace(".", "").rstrip("0")) <= digits


def test_rounding_never_gives_minus_zero():
    assert math.copysign(1, rounded(-0.0, 4)) == 1
    assert math.copysign(1, rounded(-1e-17, 4)) == 1
