"""The thirty families of the study, as one table.

A family says how it is called, which parameters a prompt prints (and what they mean), where they may lie, and
which `scipy.stats` law they stand for. To add a family, add a row to `FAMILIES` and its grids to params.yaml.

Two sets of parameters meet here. A *grid point* is what params.yaml spells out; a few families describe it by
a width or a fraction, so that no combination of grid values is impossible. The *printed* parameters are what
the prompt says. `Family.printed` maps one to the other and rounds afterwards, so the law is always that of
the numbers in the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Values = Mapping[str, Any]  # floats, or arrays that broadcast: every law and bound below accepts both

ZERO = 1e-12  # smaller magnitudes are rounding dust of sums such as -1.6 + 1.6


class ParameterError(ValueError):
    """A parameter outside its family's domain.

    `parameter` is its name and `problem` a phrase such as "must be > 0, got -1": the caller knows which key
    or file the value came from and puts that in front.
    """

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}: {problem}")
        self.parameter = parameter
        self.problem = problem


@dataclass(frozen=True)
class Parameter:
    """One parameter: its symbol, the words that name it without ambiguity, and the interval it must lie in.

    `low` and `high` bound it; an `open_` end is excluded. An `integral` parameter takes whole numbers only.
    """

    name: str
    words: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = True
    open_high: bool = True
    integral: bool = False

    @property
    def domain(self) -> str:
        """The allowed values in words, as an error message names them."""
        kind = "an integer " if self.integral else ""
        if math.isinf(self.low) and math.isinf(self.high):
            return "an integer" if self.integral else "a finite number"
        if math.isinf(self.high):
            return f"{kind}{'>' if self.open_low else '>='} {self.low:g}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{kind}in {left}{self.low:g}, {self.high:g}{right}"

    def check(self, value: float) -> None:
        """Raise `ParameterError` unless `value` lies in the domain."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        whole = not self.integral or float(value).is_integer()
        if not (math.isfinite(value) and above and below and whole):
            raise ParameterError(self.name, f"must be {self.domain}, got {value:g}")


@dataclass(frozen=True)
class Family:
    """One family of distributions.

    Attributes:
        name: key in params.yaml.
        title: name in prompts and figures.
        parameters: what the prompt prints, in this order.
        discrete: whether the law lives on the integers.
        law: printed parameters -> frozen `scipy.stats` law.
        bounds: printed parameters -> (low, high), the closed support; infinite where it has no end.
        relations: pairs (x, sign, y) of printed parameters that must satisfy x < y or x <= y.
        grid: the parameters of a grid point where they differ from the printed ones, else empty.
        from_grid: grid point -> printed parameters, unrounded; None where they are the same.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    discrete: bool
    law: Callable[[Values], Any]
    bounds: Callable[[Values], tuple[Any, Any]]
    relations: tuple[tuple[str, str, str], ...] = ()
    grid: tuple[Parameter, ...] = ()
    from_grid: Callable[[Values], dict[str, Any]] | None = None

    @property
    def grid_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that a grid point of params.yaml must give."""
        return self.grid or self.parameters

    def frozen(self, **parameters: Any) -> Any:
        """The `scipy.stats` frozen law of printed parameters (arrays broadcast to an array of laws)."""
        return self.law(parameters)

    def support(self, **parameters: Any) -> tuple[Any, Any]:
        """The closed support (low, high) of the law, in the units of its values."""
        return self.bounds(parameters)

    def printed(self, grid_point: Mapping[str, float], significant_digits: int = 4) -> dict[str, float]:
        """The parameters a prompt prints for a grid point.

        They are mapped first and rounded to `significant_digits` afterwards; whole-number parameters stay
        whole.

        Raises:
            ParameterError: a value is outside its domain, before or after rounding.
        """
        for parameter in self.grid_parameters:
            parameter.check(grid_point[parameter.name])
        mapped = self.from_grid(grid_point) if self.from_grid else grid_point
        result = {
            p.name: float(mapped[p.name]) if p.integral else rounded(mapped[p.name], significant_digits)
            for p in self.parameters
        }
        for parameter in self.parameters:
            parameter.check(result[parameter.name])
        for left, sign, right in self.relations:
            x, y = result[left], result[right]
            if not (x < y if sign == "<" else x <= y):
                raise ParameterError(left, f"must be {sign} {right} = {y:g}, got {x:g}")
        return result


def rounded(x: float, significant_digits: int) -> float:
    """`x` at so many significant digits; never -0."""
    return float(f"{x:.{significant_digits}g}") if abs(x) > ZERO else 0.0


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
