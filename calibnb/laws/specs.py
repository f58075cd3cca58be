"""Settings of the study: a family, its printed parameters, and the split they belong to.

`build` spells out the grids of grids.yaml. A `selected` row that lies between grid points is a setting of
its own, so a split holds its grid plus those rows. With the study's grids that is 1,988 for train and
validation, 591 unseen plus 17 selected rows off the grid, 92 held out plus 2: 2,690 in all.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeVar

import numpy as np

from calibnb.errors import UserError
from calibnb.laws.families import FAMILIES
from calibnb.laws.family import ParameterError
from calibnb.laws.grids import Axis, FamilyGrid

Item = TypeVar("Item")
Parameters = tuple[tuple[str, float], ...]  # the printed ones, in the order of the prompt
Split = Literal["train", "validation", "unseen", "held_out"]
TRIES = 1000  # draws of `continuous` before it gives up on a family


@dataclass(frozen=True)
class Spec:
    """One setting. `parameters` are the printed ones, in the order of the prompt."""

    family: str
    parameters: Parameters
    split: Split
    selected: bool = False

    @property
    def law(self) -> Any:
        """The frozen `scipy.stats` law, made anew at each access (0.3 ms): keep it where it is used twice."""
        return FAMILIES[self.family].frozen(**dict(self.parameters))

    @property
    def discrete(self) -> bool:
        """Whether the law lives on the integers."""
        return FAMILIES[self.family].discrete

    @property
    def support(self) -> tuple[float, float]:
        """The closed support (low, high); infinite where it has no end."""
        low, high = FAMILIES[self.family].support(**dict(self.parameters))
        return float(low), float(high)

    @property
    def label(self) -> str:
        """A short name that tells settings apart, such as `gaussian(mu=3.5, sigma=3)`."""
        return f"{self.family}({', '.join(f'{name}={number(value)}' for name, value in self.parameters)})"


def number(x: float) -> str:
    """`x` as a prompt prints it: at most 4 significant digits, no exponent, no trailing zeros, never -0.

    Whole numbers are printed whole: 12345 stays 12345, because rounding a count would change the law.
    """
    if float(x).is_integer():
        return str(int(x))
    text = format(Decimal(f"{x:.4g}"), "f")
    return text if text.strip("-0.") else "0"


def prompt(spec: Spec, template: str, parameter_names: Literal["words", "symbols"], more: str = "") -> str:
    """The text that asks for one draw from a setting's law.

    `template` names `{distribution}` and `{parameters}`; parameters are printed as "mean = 3.5" (words) or
    "mu = 3.5" (symbols), and `more` that is known of the law stands after them (:mod:`calibnb.laws.telling`).
    """
    family = FAMILIES[spec.family]
    words = {p.name: p.words for p in family.parameters} if parameter_names == "words" else {}
    text = ", ".join(f"{words.get(name, name)} = {number(value)}" for name, value in spec.parameters)
    return template.format(distribution=family.title, parameters=text + more)


def grid_points(axes: Mapping[str, Axis]) -> Iterator[dict[str, float]]:
    """The Cartesian product of a grid, the last axis running fastest."""
    for values in itertools.product(*(axis.points() for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))


def of_point(
    family: str, point: Mapping[str, float], split: Split, significant_digits: int, selected: bool = False
) -> Spec:
    """The setting of a grid point.

    Raises
    ------
    ParameterError
        Where the point is outside the family's domain.
    """
    printed = FAMILIES[family].printed(point, significant_digits)
    return Spec(family, tuple(printed.items()), split, selected)


def build(families: Mapping[str, FamilyGrid], validation_share: float, significant_digits: int) -> list[Spec]:
    """All settings of the study, family by family in the order given.

    Within a family: train and validation in grid order, then unseen or held out in grid order, then selected
    rows that lie off the grid.

    The validation settings of a family are those of its train grid whose labels hash lowest: about
    `validation_share` of them, at least one where the grid has two. They depend on nothing but that grid and
    the share, and a larger share keeps those of a smaller one.
    """
    result: list[Spec] = []
    for family, grid in families.items():
        train = (
            [of_point(family, p, "train", significant_digits) for p in grid_points(grid.train)] if grid.train else []
        )
        count = min(max(1, round(validation_share * len(train))), max(0, len(train) - 1))
        held_back = set(sorted(train, key=_shuffled)[:count])
        result += [_moved(spec, "validation") if spec in held_back else spec for spec in train]
        split: Split = "unseen" if grid.train else "held_out"
        axes = grid.unseen or grid.held_out or {}
        chosen = dict.fromkeys(of_point(family, p, split, significant_digits, True) for p in grid.selected)
        for point in grid_points(axes) if axes else ():
            spec = of_point(family, point, split, significant_digits)
            mark = Spec(spec.family, spec.parameters, split, True)
            result.append(mark if mark in chosen else spec)
            chosen.pop(mark, None)
        result += chosen
    return result


def continuous(
    family: str,
    axes: Mapping[str, Axis],
    rng: np.random.Generator,
    significant_digits: int,
    avoid: Collection[Parameters] = frozenset(),
) -> Spec:
    """A train setting drawn inside the ranges of the family's train axes and printed with so many digits.

    A `log` axis is drawn log-uniformly, a `lin` axis and a list uniformly between their ends; whole numbers
    where the parameter is one or the list holds nothing else. Parameters in `avoid` (those of the validation
    settings, say) are drawn again: a family of whole numbers would hit them often.

    Raises
    ------
    UserError
        Nothing was found outside `avoid` (after 1,000 draws).
    """
    integral = {p.name: p.integral for p in FAMILIES[family].grid_parameters}
    for _ in range(TRIES):
        point = {name: axis.draw(rng, integral[name]) for name, axis in axes.items()}
        try:
            spec = of_point(family, point, "train", significant_digits)
        except ParameterError:  # rounding may close a narrow gap such as a < c < b
            continue
        if spec.parameters not in avoid:
            return spec
    raise UserError(f"families.{family}.train: must leave settings to draw that are not in validation, found none")


def choose(specs: Iterable[Spec], split: Split, choice: int | Literal["selected", "all", "none"]) -> list[Spec]:
    """Settings of one split: all, none, the selected ones, or so many spread evenly over the families.

    A number is filled family by family in turn, selected settings first and the others in a fixed shuffled
    order; the result keeps the order of `specs`.

    Raises
    ------
    UserError
        The number is larger than the split.
    """
    pool = [spec for spec in specs if spec.split == split]
    if choice == "all":
        return pool
    if choice == "none":
        return []
    if choice == "selected":
        return [spec for spec in pool if spec.selected]
    if choice > len(pool):
        raise UserError(f"{split}: must be at most {len(pool)} settings, got {choice}")
    return spread(pool, choice)


def spread(specs: Sequence[Spec], count: int) -> list[Spec]:
    """At most `count` of the settings, spread evenly over their families, in their given order."""
    ranked: list[tuple[int, int, str, int]] = []
    families = list(dict.fromkeys(spec.family for spec in specs))
    # Which families get one more than others when the count does not divide is shuffled too.
    turn = {name: i for i, name in enumerate(sorted(families, key=_hash))}
    for name in families:
        members = [(i, spec) for i, spec in enumerate(specs) if spec.family == name]
        members.sort(key=lambda pair: (not pair[1].selected, _shuffled(pair[1])))
        ranked += [(rank, turn[name], name, i) for rank, (i, _) in enumerate(members)]
    return [specs[i] for i in sorted(entry[3] for entry in sorted(ranked)[:count])]


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced from the first on, in their order."""
    return [items[i * len(items) // count] for i in range(count)] if count < len(items) else list(items)


def _moved(spec: Spec, split: Split) -> Spec:
    return Spec(spec.family, spec.parameters, split, spec.selected)


def _shuffled(spec: Spec) -> str:
    return _hash(spec.label)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
