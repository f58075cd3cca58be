"""The table of families. A new one is an entry here and a grid in grids.yaml."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from calibnb.laws.family import Family, Parameter, Values


def _real(name: str, words: str) -> Parameter:
    return Parameter(name, words)


def _positive(name: str, words: str) -> Parameter:
    return Parameter(name, words, low=0.0)


def _count(name: str, words: str, low: int = 1) -> Parameter:
    return Parameter(name, words, low=low, open_low=False, integral=True)


def _chance(name: str, words: str, open_low: bool = False, open_high: bool = False) -> Parameter:
    return Parameter(name, words, low=0.0, high=1.0, open_low=open_low, open_high=open_high)


def _ends(low: float, high: float) -> Callable[[Values], tuple[Any, Any]]:
    return lambda p: (low, high)


_LINE = _ends(-math.inf, math.inf)
_HALF_LINE = _ends(0.0, math.inf)
_ROWS = [
    Family(
        "uniform",
        "Uniform",
        (_real("a", "lower"), _real("b", "upper")),
        False,
        lambda p: stats.uniform(p["a"], p["b"] - p["a"]),
        lambda p: (p["a"], p["b"]),
        relations=(("a", "<", "b"),),
        grid=(_real("a", "lower"), _positive("width", "width")),
        from_grid=lambda g: {"a": g["a"], "b": g["a"] + g["width"]},
    ),
    Family(
        "gaussian",
        "Gaussian",
        (_real("mu", "mean"), _positive("sigma", "standard deviation")),
        False,
        lambda p: stats.norm(p["mu"], p["sigma"]),
        _LINE,
    ),
    Family(
        "beta",
        "Beta",
        (_positive("alpha", "alpha"), _positive("beta", "beta")),
        False,
        lambda p: stats.beta(p["alpha"], p["beta"]),
        _ends(0.0, 1.0),
    ),
    Family(
        "binomial",
        "Binomial",
        (_count("n", "trials"), _chance("p", "success probability")),
        True,
        lambda p: stats.binom(p["n"], p["p"]),
        lambda p: (0.0 * p["n"], p["n"]),
    ),
    Family(
        "exponential",
        "Exponential",
        (_positive("lambda", "rate"),),
        False,
        lambda p: stats.expon(scale=1.0 / p["lambda"]),
        _HALF_LINE,
    ),
    Family(  # trials up to and including the first success
        "geometric",
        "Geometric",
        (_chance("p", "success probability", open_low=True, open_high=True),),  # scipy has no quantiles at 1
        True,
        lambda p: stats.geom(p["p"]),
        _ends(1.0, math.inf),
    ),
    Family(  # failures before the r-th success
        "negative_binomial",
        "Negative binomial",
        (_count("r", "successes"), _chance("p", "success probability", open_low=True)),
        True,
        lambda p: stats.nbinom(p["r"], p["p"]),
        _HALF_LINE,
    ),
    Family(
        "lognormal",
        "Log-normal",
        (_real("mu", "log mean"), _positive("sigma", "log standard deviation")),
        False,
        lambda p: stats.lognorm(p["sigma"], scale=np.exp(p["mu"])),
        _HALF_LINE,
    ),
    Family(
        "triangular",
        "Triangular",
        (_real("a", "lower"), _real("c", "mode"), _real("b", "upper")),
        False,
        lambda p: stats.triang((p["c"] - p["a"]) / (p["b"] - p["a"]), loc=p["a"], scale=p["b"] - p["a"]),
        lambda p: (p["a"], p["b"]),
        relations=(("a", "<", "c"), ("c", "<", "b")),
        grid=(
            _real("a", "lower"),
            _positive("width", "width"),
            Parameter("mode_fraction", "mode fraction", low=0.0, high=1.0),
        ),
        from_grid=lambda g: {
            "a": g["a"],
            "c": g["a"] + g["mode_fraction"] * g["width"],
            "b": g["a"] + g["width"],
        },
    ),
    Family(
        "rayleigh",
        "Rayleigh",
        (_positive("sigma", "scale"),),
        False,
        lambda p: stats.rayleigh(scale=p["sigma"]),
        _HALF_LINE,
    ),
    Family(
        "cauchy",
        "Cauchy",
        (_real("x0", "location"), _positive("gamma", "scale")),
        False,
        lambda p: stats.cauchy(p["x0"], p["gamma"]),
        _LINE,
    ),
    Family(
        "student_t",
        "Student's t",
        (_positive("nu", "degrees of freedom"),),
        False,
        lambda p: stats.t(p["nu"]),
        _LINE,
    ),
    Family(
        "chi_square",
        "Chi-square",
        (_positive("nu", "degrees of freedom"),),
        False,
        lambda p: stats.chi2(p["nu"]),
        _HALF_LINE,
    ),
    Family(
        "f_distribution",
        "F",
        (
            _positive("d1", "numerator degrees of freedom"),
            _positive("d2", "denominator degrees of freedom"),
        ),
        False,
        lambda p: stats.f(p["d1"], p["d2"]),
        _HALF_LINE,
    ),
    Family(
        "gamma",
        "Gamma",
        (_positive("alpha", "shape"), _positive("beta", "scale")),
        False,
        lambda p: stats.gamma(p["alpha"], scale=p["beta"]),
        _HALF_LINE,
    ),
    Family(
        "laplace",
        "Laplace",
        (_real("mu", "location"), _positive("b", "scale")),
        False,
        lambda p: stats.laplace(p["mu"], p["b"]),
        _LINE,
    ),
    Family(
        "logistic",
        "Logistic",
        (_real("mu", "location"), _positive("s", "scale")),
        False,
        lambda p: stats.logistic(p["mu"], p["s"]),
        _LINE,
    ),
    Family(
        "pareto",
        "Pareto",
        (_positive("alpha", "shape"), _positive("xm", "minimum")),
        False,
        lambda p: stats.pareto(p["alpha"], scale=p["xm"]),
        lambda p: (p["xm"], math.inf),
    ),
    Family(  # scipy calls the successes n and the draws N
        "hypergeometric",
        "Hypergeometric",
        (_count("M", "population"), _count("K", "successes", 0), _count("N", "draws")),
        True,
        lambda p: stats.hypergeom(p["M"], p["K"], p["N"]),
        lambda p: (np.maximum(0.0, p["N"] + p["K"] - p["M"]), np.minimum(p["K"], p["N"])),
        relations=(("K", "<=", "M"), ("N", "<=", "M")),
        grid=(
            _count("M", "population"),
            _count("N", "draws"),
            _chance("success_fraction", "success fraction"),
        ),
        from_grid=lambda g: {"M": g["M"], "K": round(g["M"] * g["success_fraction"]), "N": g["N"]},
    ),
    Family(  # skewed to the right
        "gumbel",
        "Gumbel",
        (_real("mu", "location"), _positive("beta", "scale")),
        False,
        lambda p: stats.gumbel_r(p["mu"], p["beta"]),
        _LINE,
    ),
    Family(
        "skellam",
        "Skellam",
        (_positive("mu1", "first mean"), _positive("mu2", "second mean")),
        True,
        lambda p: stats.skellam(p["mu1"], p["mu2"]),
        _LINE,
    ),
    Family(
        "beta_binomial",
        "Beta-binomial",
        (_count("n", "trials"), _positive("alpha", "alpha"), _positive("beta", "beta")),
        True,
        lambda p: stats.betabinom(p["n"], p["alpha"], p["beta"]),
        lambda p: (0.0 * p["n"], p["n"]),
    ),
    Family(
        "lomax",
        "Lomax",
        (_positive("alpha", "shape"), _positive("lambda", "scale")),
        False,
        lambda p: stats.lomax(p["alpha"], scale=p["lambda"]),
        _HALF_LINE,
    ),
    Family(  # scipy's mu is the mean over its scale
        "inverse_gaussian",
        "Inverse Gaussian",
        (_positive("mu", "mean"), _positive("lambda", "shape")),
        False,
        lambda p: stats.invgauss(p["mu"] / p["lambda"], scale=p["lambda"]),
        _HALF_LINE,
    ),
    Family(
        "bernoulli",
        "Bernoulli",
        (_chance("p", "success probability"),),
        True,
        lambda p: stats.bernoulli(p["p"]),
        _ends(0.0, 1.0),
    ),
    Family(
        "poisson",
        "Poisson",
        (_positive("lambda", "mean"),),
        True,
        lambda p: stats.poisson(p["lambda"]),
        _HALF_LINE,
    ),
    Family(
        "weibull",
        "Weibull",
        (_positive("k", "shape"), _positive("lambda", "scale")),
        False,
        lambda p: stats.weibull_min(p["k"], scale=p["lambda"]),
        _HALF_LINE,
    ),
    Family(
        "maxwell",
        "Maxwell",
        (_positive("scale", "scale"),),
        False,
        lambda p: stats.maxwell(scale=p["scale"]),
        _HALF_LINE,
    ),
    Family(
        "chi",
        "Chi",
        (_positive("df", "degrees of freedom"),),
        False,
        lambda p: stats.chi(p["df"]),
        _HALF_LINE,
    ),
    Family(  # mu and sigma are those of the parent before truncation
        "truncnorm",
        "Truncated normal",
        (
            _real("mu", "mean"),
            _positive("sigma", "standard deviation"),
            _real("lower", "lower"),
            _real("upper", "upper"),
        ),
        False,
        lambda p: stats.truncnorm(
            (p["lower"] - p["mu"]) / p["sigma"],
            (p["upper"] - p["mu"]) / p["sigma"],
            loc=p["mu"],
            scale=p["sigma"],
        ),
        lambda p: (p["lower"], p["upper"]),
        relations=(("lower", "<", "upper"),),
    ),
]
FAMILIES: dict[str, Family] = {family.name: family for family in _ROWS}
