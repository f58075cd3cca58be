"""Grids of grids.yaml: the settings of a family as the product of its axes."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Strict

from calibnb.blocks import Block, is_number, refusal

MAX_GRID = 100_000  # settings of one grid: a slip such as n = 10**9 should be an error, not a hang
Discretisation = Literal["thin", "coarsen"]


class Axis(Block):
    """One parameter's values: a list, or points spaced evenly (`lin`) or geometrically (`log`)."""

    kind: Literal["list", "lin", "log"]
    values: tuple[int | float, ...]  # the list itself, or (low, high, count)

    def points(self) -> list[float]:
        """The values in the order of the grid."""
        if self.kind == "list":
            return list(self.values)
        low, high, count = self.values
        points = (np.linspace if self.kind == "lin" else np.geomspace)(low, high, int(count))
        whole = np.round(points)
        is_whole = np.isclose(points, whole, rtol=1e-9, atol=0.0)  # 20.000000000000004
        return [float(x) for x in np.where(is_whole, whole, points)]

    @property
    def spelt(self) -> list[int | float] | dict[str, list[int | float]]:
        """As grids.yaml spells it."""
        return list(self.values) if self.kind == "list" else {self.kind: list(self.values)}

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return (min(self.values), max(self.values)) if self.kind == "list" else (self.values[0], self.values[1])

    def draw(self, rng: np.random.Generator, integral: bool) -> float:
        """A value inside the axis's range, as `specs.continuous` describes."""
        low, high = self.ends
        integral = integral or (self.kind == "list" and all(isinstance(x, int) for x in self.values))
        if integral:
            low, high = math.ceil(low), math.floor(high)
            if self.kind == "log":
                return float(min(math.floor(math.exp(rng.uniform(math.log(low), math.log(high + 1)))), high))
            return float(rng.integers(low, high, endpoint=True))
        if self.kind == "log":
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        return float(rng.uniform(low, high))


def _axis(raw: Any) -> Any:
    if isinstance(raw, Axis):
        return raw
    if isinstance(raw, list):
        if not raw or not all(map(is_number, raw)):
            raise refusal("a list of numbers", raw)
        if len(set(raw)) < len(raw):
            raise refusal("a list without repeats", raw)
        return Axis(kind="list", values=tuple(raw))
    shape = "a list of numbers, {lin: [low, high, count]} or {log: [low, high, count]}"
    if not isinstance(raw, dict) or len(raw) != 1 or next(iter(raw)) not in ("lin", "log"):
        raise refusal(shape, raw)
    kind, values = next(iter(raw.items()))
    if not isinstance(values, list) or len(values) != 3 or not all(map(is_number, values)):
        raise refusal(shape, raw)
    low, high, count = values
    if not isinstance(count, int) or not 2 <= count <= MAX_GRID:
        raise refusal(f"given with an integer count from 2 to {MAX_GRID}", raw)
    if not low < high:
        raise refusal("given with low < high", raw)
    if kind == "log" and low <= 0:
        raise refusal("given with low > 0 (a log grid)", raw)
    return Axis(kind=kind, values=(low, high, count))


def _coordinate(raw: Any) -> Any:
    if not is_number(raw):
        raise refusal("a number", raw)
    return raw


Axes = dict[str, Annotated[Axis, BeforeValidator(_axis)]]
Row = dict[str, Annotated[int | float, BeforeValidator(_coordinate)]]


class FamilyGrid(Block):
    """The settings of one family: `train` and `unseen` grids, or a `held_out` one, and `selected` rows."""

    train: Axes | None = None
    unseen: Axes | None = None
    held_out: Axes | None = None
    selected: Annotated[tuple[Row, ...], Strict(False)]

    @property
    def grids(self) -> dict[str, Axes]:
        """The grids that are given, by split."""
        every = {"train": self.train, "unseen": self.unseen, "held_out": self.held_out}
        return {split: axes for split, axes in every.items() if axes is not None}


Families = dict[str, FamilyGrid]
