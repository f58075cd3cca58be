"""Settings as files: what was written is read, and what no training can see changes nothing that it depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from notebook_code import ROOT

from calibnb.laws import settings, specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.grids import FamilyGrid
from calibnb.laws.settings import TrainingSettings
from calibnb.pipeline import params
from calibnb.training.curriculum import prompts_of_run

STUDY = params.load(ROOT / "params.yaml")
ALL = specs.build(STUDY.families, STUDY.data.validation_share, STUDY.data.significant_digits)
TRAINED = [name for name, grid in STUDY.families.items() if grid.train]


def grid(**given: Any) -> FamilyGrid:
    return FamilyGrid.model_validate({"selected": []} | given)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_questions_come_back_as_they_were_written(family: str, tmp_path: Path) -> None:
    asked = settings.questions([s for s in ALL if s.family == family], STUDY.prompt)
    assert asked and all(question.prompt.startswith("Draw one random number") for question in asked)
    settings.write_questions(asked, tmp_path / "below" / "asked.jsonl")
    found = settings.read_questions(tmp_path / "below" / "asked.jsonl")
    assert found == asked
    # Whole numbers stay as they are: laws and labels are made of them.
    kinds = [[type(value) for _, value in question.spec.parameters] for question in found]
    assert kinds == [[type(value) for _, value in question.spec.parameters] for question in asked]
    settings.write_questions(found, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "below" / "asked.jsonl").read_bytes()


@pytest.mark.parametrize("family", TRAINED)
def test_training_settings_come_back_as_they_were_written(family: str, tmp_path: Path) -> None:
    whole = TrainingSettings.of({family: STUDY.families[family]}, 0.1, 4)
    whole.write(tmp_path / "below" / "settings.json")
    found = TrainingSettings.read(tmp_path / "below" / "settings.json")
    assert found == whole
    assert found.train and found.validation and set(found.ranges) == {family}
    found.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "below" / "settings.json").read_bytes()


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 11])
def test_unseen_points_that_no_draw_can_hit_need_not_be_avoided(digits: int, seed: int) -> None:
    """The whole order of training is the same where all unseen points are avoided."""
    families = dict(STUDY.families)
    if digits == 1:
        del families["triangular"]  # its grid has no three different numbers in so few digits
    some = TrainingSettings.of(families, 0.1, digits)
    unseen = {
        specs.of_point(name, point, "unseen", digits).parameters
        for name in some.ranges
        for point in specs.grid_points(families[name].unseen or {})
    }
    every = replace(some, avoid=frozenset({s.parameters for s in some.validation} | unseen))
    assert some.avoid <= every.avoid and (digits == 1 or some.avoid < every.avoid)
    order = prompts_of_run(some, STUDY.finetune["soft"], seed)
    assert order == prompts_of_run(every, STUDY.finetune["soft"], seed)
    assert {s.family for s in order} == set(some.ranges)


def test_an_unseen_point_that_a_draw_could_hit_is_avoided() -> None:
    axes = {"n": [1, 3], "p": [0.5]}
    found = TrainingSettings.of({"binomial": grid(train=axes, unseen={"n": [2, 40], "p": [0.5]})}, 0.5, 4)
    (validation,) = found.validation
    assert found.avoid == {validation.parameters, (("n", 2.0), ("p", 0.5))}


@pytest.mark.parametrize("digits", [1, 2])
def test_a_point_outside_the_ranges_that_rounding_prints_as_one_inside_is_avoided(digits: int) -> None:
    low, near = {1: (2.0, 2.2), 2: (2.0, 2.02)}[digits]
    families = {"exponential": grid(train={"lambda": [1.0, low]}, unseen={"lambda": [near, 900.0]})}
    assert (("lambda", 2.0),) in TrainingSettings.of(families, 0.5, digits).avoid


def test_an_unseen_point_of_another_family_with_the_same_parameters_is_avoided() -> None:
    """What is avoided are parameters: no family is named with them."""
    families = {
        "chi_square": grid(train={"nu": [2.0, 20.0]}, unseen={"nu": [30.0]}),
        "student_t": grid(train={"nu": [2.5, 10.0]}, unseen={"nu": [12.0, 40.0]}),
    }
    found = TrainingSettings.of(families, 0.5, 4)
    assert found.avoid == {s.parameters for s in found.validation} | {(("nu", 12.0),)}


def test_families_with_the_same_printed_parameters_have_the_same_axes() -> None:
    printed = {name: [p.name for p in family.parameters] for name, family in FAMILIES.items()}
    axes = {name: [p.name for p in family.grid_parameters] for name, family in FAMILIES.items()}
    assert all(axes[a] == axes[b] for a in FAMILIES for b in FAMILIES if printed[a] == printed[b])


GAUSSIAN = {"mu": {"lin": [-2.0, 2.0, 3]}, "sigma": {"log": [0.5, 2.0, 3]}}


def written(folder: Path, **families: FamilyGrid) -> bytes:
    TrainingSettings.of(families, 0.1, 4).write(folder / "settings.json")
    return (folder / "settings.json").read_bytes()


def test_only_what_training_can_see_changes_its_file(tmp_path: Path) -> None:
    outside = {"mu": [3.0], "sigma": [3.0]}
    before = written(tmp_path, gaussian=grid(train=GAUSSIAN, unseen=outside))
    other = grid(train=GAUSSIAN, unseen={"mu": [3.0, 5.0], "sigma": [3.0]}, selected=[{"mu": 9.0, "sigma": 9.0}])
    assert written(tmp_path, gaussian=other) == before
    held_out = grid(held_out={"p": [0.5]})
    assert written(tmp_path, gaussian=grid(train=GAUSSIAN, unseen=outside), bernoulli=held_out) == before
    inside = grid(train=GAUSSIAN, unseen={"mu": [3.0, 0.5], "sigma": [3.0, 0.7]})
    assert written(tmp_path, gaussian=inside) != before
    wider = grid(train=GAUSSIAN | {"mu": {"lin": [-2.0, 2.5, 3]}}, unseen=outside)
    assert written(tmp_path, gaussian=wider) != before
