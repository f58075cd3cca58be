"""Blocks of params.yaml that the library works with below `params`: the grids of settings and of answers.

`params` puts them together and checks the file; here is what all blocks have in common, and what `specs` and `laws`
read.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

LARGEST = 1e15  # size of a grid's numbers: whole ones beyond are no longer exact as floats
MAX_GRID = 100_000  # settings of one grid: a slip such as n = 10**9 should be an error, not a hang

Discretisation = Literal["thin", "coarsen"]


class Block(BaseModel):
    """A block of keys: all required, no others, no conversions between types, unchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def shown(value: Any) -> str:
    """A value as the file might spell it, on one short line."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refusal(requirement: str, got: Any) -> PydanticCustomError:
    """An error whose text follows the key: "must be ..., got ..."."""
    return PydanticCustomError("calibnb", f"must be {requirement}, got {shown(got)}")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


# ------------------------------------------------------------------------------------------- grids of settings


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
        near = np.isclose(points, whole, rtol=1e-9, atol=0.0)  # 20.000000000000004
        return [float(x) for x in np.where(near, whole, points)]

    def draw(self, rng: np.random.Generator, integral: bool) -> float:
        """A value inside the axis's range, as `specs.continuous` describes."""
        if self.kind == "list":
            low, high = min(self.values), max(self.values)
            integral = integral or all(isinstance(x, int) for x in self.values)
        else:
            low, high = self.values[:2]
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


# -------------------------------------------------------------------------------------------- grid of answers


class SpaceParams(Block):
    """How a continuous law is put on a decimal grid: see `laws.answer_law`."""

    discretisation: Discretisation
    num_decimals: Annotated[int, Field(ge=0, le=8)]
    max_bins: Annotated[int, Field(ge=2, le=65536)]
