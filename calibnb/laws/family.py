"""What a family of laws is: its parameters and their domains, its scipy law, its support."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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

    Attributes
    ----------
    name : str
        Key in grids.yaml.
    title : str
        Name in prompts and figures.
    parameters : tuple[Parameter, ...]
        What the prompt prints, in this order.
    discrete : bool
        Whether the law lives on the integers.
    law : Callable[[Values], Any]
        Printed parameters -> frozen `scipy.stats` law.
    bounds : Callable[[Values], tuple[Any, Any]]
        Printed parameters -> (low, high), the closed support; infinite where it has no end.
    relations : tuple[tuple[str, str, str], ...]
        Pairs (x, sign, y) of printed parameters that must satisfy x < y or x <= y.
    grid : tuple[Parameter, ...]
        The parameters of a grid point where they differ from the printed ones, else empty.
    from_grid : Callable[[Values], dict[str, Any]] or None
        Grid point -> printed parameters, unrounded; None where they are the same.
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
        """The parameters that a grid point of grids.yaml must give."""
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

        Raises
        ------
        ParameterError
            A value is outside its domain, before or after rounding.
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
