"""Settings as files: written once, so that what trains and what measures depends on them and not on all grids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from calibnb.laws import specs
from calibnb.laws.grids import Axes, FamilyGrid
from calibnb.laws.params import PromptParams
from calibnb.laws.specs import Parameters, Spec, Split

STUDY = Path("items/study/settings.jsonl")  # all settings of all splits, of the stage `items`


@dataclass(frozen=True)
class Question:
    """A setting and the prompt that asks for a draw from it."""

    spec: Spec
    prompt: str


def questions(settings: Iterable[Spec], prompt: PromptParams) -> list[Question]:
    """Each setting with its prompt."""
    return [Question(spec, specs.prompt(spec, prompt.template, prompt.parameter_names)) for spec in settings]


def write_questions(asked: Iterable[Question], path: Path) -> None:
    """One line a question; equal questions are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_row(question.spec) | {"prompt": question.prompt}) for question in asked]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_questions(path: Path) -> list[Question]:
    """The questions of a file that `write_questions` wrote, in its order."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Question(_spec(row), row["prompt"]) for row in rows]


def _row(spec: Spec) -> dict[str, Any]:
    about = {"split": spec.split, "family": spec.family, "parameters": dict(spec.parameters)}
    return about | {"selected": spec.selected}


def _spec(row: Mapping[str, Any]) -> Spec:
    return Spec(row["family"], tuple(row["parameters"].items()), cast(Split, row["split"]), row["selected"])


@dataclass(frozen=True)
class TrainingSettings:
    """What training may see of the study's settings.

    Attributes
    ----------
    train, validation : tuple[Spec, ...]
        The settings of these splits.
    ranges : Mapping[str, Axes]
        By family, the axes of its train grid, inside which continuous parameters are drawn.
    avoid : frozenset[Parameters]
        Printed parameters that are drawn again, in whichever family: those of validation settings, and points of unseen
        grids that lie inside train ranges, of their own family or of one with the same parameters (nu is one of
        chi_square and of student_t). Points outside them no draw can hit, so that they change nothing here.
    significant_digits : int
        Significant digits of printed parameters.
    """

    train: tuple[Spec, ...]
    validation: tuple[Spec, ...]
    ranges: Mapping[str, Axes]
    avoid: frozenset[Parameters]
    significant_digits: int

    def __post_init__(self) -> None:
        splits = ({s.split for s in self.train} - {"train"}) | ({s.split for s in self.validation} - {"validation"})
        if splits:
            raise ValueError(f"training may see train and validation settings only, got {sorted(splits)}")

    @classmethod
    def of(
        cls, families: Mapping[str, FamilyGrid], validation_share: float, significant_digits: int
    ) -> TrainingSettings:
        """Those of the study's grids."""
        settings = specs.build(families, validation_share, significant_digits)
        ranges = {name: grid.train for name, grid in families.items() if grid.train}
        validation = tuple(s for s in settings if s.split == "validation")
        avoid = {s.parameters for s in validation} | {
            specs.of_point(name, point, "unseen", significant_digits).parameters
            for name in ranges
            for point in (specs.grid_points(families[name].unseen or {}) if families[name].unseen else ())
            if any(_near(point, axes, significant_digits) for axes in ranges.values() if axes.keys() == point.keys())
        }
        train = tuple(s for s in settings if s.split == "train")
        return cls(train, validation, ranges, frozenset(avoid), significant_digits)

    def write(self, path: Path) -> None:
        """To one file; equal settings are equal bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "significant_digits": self.significant_digits,
            "ranges": {name: {a: axis.spelt for a, axis in axes.items()} for name, axes in self.ranges.items()},
            "avoid": sorted(self.avoid),
            "settings": [_row(spec) for spec in (*self.train, *self.validation)],
        }
        rows = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> TrainingSettings:
        """From a file that `write` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = [_spec(row) for row in content["settings"]]
        return cls(
            tuple(s for s in settings if s.split == "train"),
            tuple(s for s in settings if s.split == "validation"),
            TypeAdapter(dict[str, Axes]).validate_python(content["ranges"]),
            frozenset(tuple((name, value) for name, value in point) for point in content["avoid"]),
            content["significant_digits"],
        )


def _near(point: Mapping[str, float], axes: Axes, significant_digits: int) -> bool:
    """Whether printed parameters inside the ranges may be those of the point: rounding moves what is printed."""
    for name, axis in axes.items():
        low, high = axis.ends
        moved = 2 * 10.0 ** (1 - significant_digits) * max(abs(low), abs(high), *map(abs, point.values()))
        if not low - moved <= point[name] <= high + moved:
            return False
    return True
