"""params.yaml, with the families of grids.yaml beside it, as typed, checked objects.

`load` reads the files, checks every key and every grid point before anything runs, and raises one `UserError`
that names the key, what is allowed and what was found. There are no defaults: the files say all of it, and
explain each key where it stands. The grids have a file of their own because DVC parses params.yaml for every stage, and
walks through all its keys.

    python -m calibnb.pipeline.params check [params.yaml]                          checks a file
    python -m calibnb.pipeline.params merge params.yaml profiles/demo.yaml > out   lays a profile over it
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import yaml
from pydantic import Strict, create_model

from calibnb import parameters, yaml_files
from calibnb.benchmarks import registry
from calibnb.benchmarks.params import BenchmarkParams, Named
from calibnb.blocks import Block, Budget, Count, Names, Seeds, Unique, shown
from calibnb.errors import UserError
from calibnb.laws import canonical, specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.family import ParameterError
from calibnb.laws.grids import MAX_GRID, Families, FamilyGrid
from calibnb.laws.params import DataParams, PromptParams, SpaceParams
from calibnb.models.params import ComputeParams, ModelName
from calibnb.models.places import place as place_of
from calibnb.models.sources import TABLE
from calibnb.training.params import (
    DEFAULTS,
    SELF,
    TEMPERATURE,
    UNTRAINED,
    MethodName,
    Methods,
    OrdinaryParams,
    TemperatureParams,
)

if TYPE_CHECKING:
    Benchmarks = Any  # a block for each folder of benchmarks, which no checker sees
else:
    Benchmarks = create_model(
        "Benchmarks", __base__=Block, **{name: (kind, ...) for name, kind in registry.blocks().items()}
    )


GRIDS = "grids.yaml"


class Params(Block):
    """The whole study; `families` is what stands in grids.yaml."""

    models: Annotated[tuple[ModelName, ...], Unique, Strict(False)]
    methods: Annotated[tuple[MethodName, ...], Unique, Strict(False)]
    variants: Names
    seeds: Seeds
    bootstrap: Count
    budget_tflop: Budget
    compute: ComputeParams
    prompt: PromptParams
    data: DataParams
    families: Families
    finetune: Methods
    temperature: TemperatureParams
    ordinary: OrdinaryParams
    benchmarks: Benchmarks

    def measured(self, benchmark: str) -> tuple[str, ...]:
        """The variants that a benchmark is measured on."""
        block: BenchmarkParams = dict(self.benchmarks)[benchmark]
        return block.measured(self.variants)

    def needed(self) -> dict[str, dict[str, bool]]:
        """What a model may be prepared with, by the name of its stage: for whom, and whether that one needs it."""
        mixtures = {name: self.finetune[name].mixture for name in self.methods}
        return {
            "ordinary": {name: how is not None and how.source == SELF for name, how in mixtures.items()},
            "temperature": {TEMPERATURE: TEMPERATURE in self.variants},
        }


def read(path: str | Path) -> dict[str, Any]:
    """The keys of a parameter file, and ``families`` from the grids beside it, unchecked.

    Raises
    ------
    UserError
        Where one of the two files is missing or no mapping of keys, or the first has families of its own.
    """
    raw = yaml_files.read(path)
    if "families" in raw:
        raise UserError(f"{path}: families: must be in {GRIDS} beside it, got a key here")
    return raw | {"families": yaml_files.read(Path(path).with_name(GRIDS))}


def under(path: str | Path, profile: str | Path) -> dict[str, Any]:
    """The keys of a parameter file as :func:`read` has them, with those of a profile laid over, unchecked."""
    return merge(read(path), yaml_files.read(profile))


def write(raw: Mapping[str, Any], folder: Path) -> None:
    """Parameters as `read` returns them, as the two files of a folder."""
    for name, part in {
        "params.yaml": {key: value for key, value in raw.items() if key != "families"},
        GRIDS: raw["families"],
    }.items():
        text = yaml.safe_dump(part, sort_keys=False, width=110, default_flow_style=None)
        (folder / name).write_text(text, encoding="utf-8")


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a complete parameter file.

    Raises
    ------
    UserError
        One line with the file as given, the dotted key, what is allowed and what was found.
    """
    return parse(read(path), str(path))


def parse(raw: Mapping[str, Any], source: str = "params.yaml") -> Params:
    """Check parameters that are already in memory; `source` stands in front of every message."""
    params = parameters.parse(Params, raw, source)
    for problem in _problems(params):
        raise UserError(f"{source}: {problem}")
    return params


def absent(params: Params) -> Iterator[str]:
    """Lines on the local files and folders that parameters name and that are not there, seen from the current folder.

    Stages look again when they read them; a check before any work saves the hours that come first.
    """
    rows = [Named("models", name, TABLE, "model", "folder") for name in params.models]
    for name in params.methods:
        mixture = params.finetune[name].mixture
        if mixture is not None:
            rows.append(Named(f"finetune.{name}.mixture.source", mixture.source, [SELF], "data", "file"))
    problems = [row.problem() for row in rows]
    for name, block in params.benchmarks:
        problems += [f"benchmarks.{name}.{said}" if (said := row.problem()) else None for row in block.files()]
    yield from filter(None, problems)


def merge(base: Mapping[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with a profile's keys laid over it.

    Blocks merge key by key; anything else replaces what was there, and so does a grid ({lin: ...} over {log:
    ...}). A null in place of a block leaves that block out, but for a mixture, which is null where there is none.
    """
    result = dict(base)
    if isinstance(profile.get("finetune"), Mapping) and isinstance(base.get("finetune"), Mapping):
        result["finetune"] = _inherited(base["finetune"], profile["finetune"])
    for key, value in profile.items():
        old = result.get(key)
        if isinstance(old, Mapping) and value is None and key != "mixture":
            del result[key]
        elif (
            isinstance(old, Mapping) and isinstance(value, Mapping) and not {"lin", "log"} & (old.keys() | value.keys())
        ):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _inherited(base: Mapping[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
    """The methods before a profile's own keys are laid over them: with its defaults, where they had the old ones.

    A method that only the profile has begins as the defaults.
    """
    old, new = base.get(DEFAULTS), profile.get(DEFAULTS) or {}
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return dict(base)
    result = dict(base)
    for name in dict.fromkeys([*base, *profile]):
        method = base.get(name, old)
        if isinstance(method, Mapping):
            result[name] = dict(method) | {key: value for key, value in new.items() if method.get(key) == old.get(key)}
    return result


def _problems(params: Params) -> Iterator[str]:
    """What is wrong between keys, as `dotted.key: must be ..., got ...`; nothing where all is well."""
    if not params.families:
        yield "families: must be at least one family, got none"
        return
    for name in params.families:
        if name not in FAMILIES:
            yield f"families.{name}: unknown family; allowed: {', '.join(FAMILIES)}"
            return
    for name, grid in params.families.items():
        yield from _family_problems(name, grid, params.data.significant_digits)
    yield from _method_problems(params)
    settings = specs.build(params.families, params.data.validation_share, params.data.significant_digits)
    if not any(s.split == "validation" for s in settings):
        yield f"data.validation_share: must leave a setting to validate on, got {params.data.validation_share}"
    yield from _overlap_problems(settings)
    yield from _settings_problems(params, settings)
    yield from _space_problems(params, settings)


def _family_problems(name: str, grid: FamilyGrid, digits: int) -> Iterator[str]:
    key = f"families.{name}"
    grids = grid.grids
    if set(grids) not in ({"train"}, {"train", "unseen"}, {"held_out"}):
        yield f"{key}: must be given train and unseen, or held_out, got {', '.join(grids) or 'none of them'}"
        return
    allowed = [p.name for p in FAMILIES[name].grid_parameters]
    blocks = [(f"{key}.{split}", list(axes)) for split, axes in grids.items()]
    blocks += [(f"{key}.selected.{i}", list(row)) for i, row in enumerate(grid.selected)]
    for place, names in blocks:
        for n in names:
            if n not in allowed:
                yield f"{place}.{n}: unknown key; allowed: {', '.join(allowed)}"
                return
        for n in allowed:
            if n not in names:
                yield f"{place}.{n}: must be given, got nothing"
                return
    for split, axes in grids.items():
        if math.prod(len(axis.points()) for axis in axes.values()) > MAX_GRID:
            yield f"{key}.{split}: must be at most {MAX_GRID} settings, got more"
            return
        yield from _point_problems(name, specs.grid_points(axes), f"{key}.{split}", digits)
    for i, row in enumerate(grid.selected):
        yield from _point_problems(name, [row], f"{key}.selected.{i}", digits)


def _point_problems(name: str, points: Iterable[Mapping[str, float]], key: str, digits: int) -> Iterator[str]:
    """Points outside the family's domain, and points that rounding makes equal."""
    seen: dict[tuple[float, ...], Mapping[str, float]] = {}
    for point in points:
        try:
            printed = tuple(FAMILIES[name].printed(point, digits).values())
        except ParameterError as error:
            # A printed parameter that no key spells out (uniform's b) is reported for the block.
            dot = "." if error.parameter in point else ": "
            colon = ":" if error.parameter in point else ""
            yield f"{key}{dot}{error.parameter}{colon} {error.problem}"
            return
        if printed in seen:
            pair = f"{shown(seen[printed])} and {shown(point)}"
            yield f"{key}: must be settings that differ at {digits} significant digits, got {pair}"
            return
        seen[printed] = point


def _method_problems(params: Params) -> Iterator[str]:
    yield from _place_problems(params)
    known = ", ".join(name for name in params.finetune if name != DEFAULTS)
    for method in params.methods:
        if method not in params.finetune:
            yield f"methods: must be among the blocks of finetune ({known}), got {shown(method)}"
    possible = (*UNTRAINED, *params.methods)
    for variant in params.variants:
        if variant not in possible:
            yield f"variants: must be among {', '.join(possible)}, got {shown(variant)}"
    for name, block in params.benchmarks:
        key, measured = f"benchmarks.{name}", params.measured(name)
        for variant in measured:
            if variant not in params.variants:
                yield f"{key}.variants: must be among the study's ({', '.join(params.variants)}), got {shown(variant)}"
            if variant not in params.measured("structured"):
                got = f"{shown(params.measured('structured'))} without {variant}"
                yield f"benchmarks.structured.variants: must hold all of {key}.variants, got {got}"
        yield from (f"{key}.{problem}" for problem in block.problems(measured))
    fitted = params.temperature
    if fitted.method not in params.finetune:
        yield f"temperature.method: must be among the blocks of finetune ({known}), got {shown(fitted.method)}"
    for name, how in params.finetune.items():
        yield from (f"finetune.{name}.{problem}" for problem in how.problems())
    if not any(grid.train for grid in params.families.values()):
        yield "families: must be at least one family with a train grid, got none"
    yield from _default_problems(params)


def _default_problems(params: Params) -> Iterator[str]:
    """Defaults that no method has: `dvc exp run -S` spells every method out, so that changing one there is in vain."""
    if DEFAULTS not in params.finetune:
        yield f"finetune.{DEFAULTS}: must be given, got nothing"
        return
    methods = [how.model_dump() for name, how in params.finetune.items() if name != DEFAULTS]
    for key, value in params.finetune[DEFAULTS].model_dump().items():
        if methods and all(how[key] != value for how in methods):
            yield f"finetune.{DEFAULTS}.{key}: must be what a method has (finetune.<method>.{key}), got {shown(value)}"
            return


def _place_problems(params: Params) -> Iterator[str]:
    """Models whose files, or runs whose stages, would be the same ones."""
    paths = [place_of(model) for model in params.models]
    if len(set(paths)) < len(paths):
        yield f"models: must be names that differ as paths, got {shown(params.models)}"
    if len({path.casefold() for path in paths}) < len(paths):  # some file systems take them for one
        yield f"models: must be names that differ by more than their case, got {shown(params.models)}"
    kept = {"weights", "reference", *UNTRAINED, *params.methods}  # folders below a model's own
    for outer in paths:
        for inner in paths:
            below = inner.removeprefix(f"{outer}/").split("/")[0]
            if inner.startswith(f"{outer}/") and below in kept:
                yield f"models: must be names of which none lies in the {below} of another, got {shown(params.models)}"
    runs = [f"{model}-{method}-{seed}" for model in params.models for method in params.methods for seed in params.seeds]
    measured = [f"{model}-{variant}" for model in params.models for variant in params.variants]
    for key, stages in (("methods", runs), ("variants", measured)):
        for stage in stages:
            if stages.count(stage) > 1:
                yield f"{key}: must make stages that differ when joined to models with -, got {stage} twice"
                return


def _overlap_problems(settings: list[specs.Spec]) -> Iterator[str]:
    """An evaluation setting that is also trained on would make every later number meaningless."""
    trained = {(s.family, s.parameters) for s in settings if s.split in ("train", "validation")}
    for s in settings:
        if s.split == "unseen" and (s.family, s.parameters) in trained:
            yield f"families.{s.family}.unseen: must be settings that are not in train, got {s.label}"
            return


def _settings_problems(params: Params, settings: list[specs.Spec]) -> Iterator[str]:
    chosen = params.benchmarks.structured.settings
    total = 0
    for key, split, choice in (
        ("in_range", "validation", chosen.in_range),
        ("unseen", "unseen", chosen.unseen),
        ("held_out", "held_out", chosen.held_out),
    ):
        pool = [s for s in settings if s.split == split]
        if isinstance(choice, int) and choice > len(pool):
            yield f"benchmarks.structured.settings.{key}: must be <= {len(pool)} (the {split} settings), got {choice}"
            return
        total += len(specs.choose(settings, split, choice))  # type: ignore[arg-type]
    if not total:
        yield "benchmarks.structured.settings: must be at least one setting, got none"
    sampled = params.benchmarks.structured.sampled.settings
    if isinstance(sampled, int) and sampled > total:
        yield f"benchmarks.structured.sampled.settings: must be <= {total} (the measured settings), got {sampled}"


def _space_problems(params: Params, settings: list[specs.Spec]) -> Iterator[str]:
    """Settings that do not fit an output space: too many integers, or no number between the quantiles."""
    spaces: list[tuple[str, SpaceParams, tuple[str, ...]]] = [
        (f"finetune.{m}", params.finetune[m].space, ("train", "validation"))
        for m in dict.fromkeys([*params.methods, params.temperature.method])
    ]
    structured = params.benchmarks.structured
    spaces.append(("benchmarks.structured.space", structured.space, ("validation", "unseen", "held_out")))
    for family in params.families:
        members = [s for s in settings if s.family == family]
        # One array law for the whole family: a quantile at a time would take seconds.
        printed = {name: np.array([dict(s.parameters)[name] for s in members]) for name, _ in members[0].parameters}
        law = FAMILIES[family].frozen(**printed)
        low, high = (np.broadcast_to(x, len(members)) for x in FAMILIES[family].support(**printed))
        discrete = FAMILIES[family].discrete
        first = np.where(np.isinf(low) | (not discrete), law.ppf(canonical.TAILS[0]), low)
        last = np.where(np.isinf(high) | (not discrete), law.ppf(canonical.TAILS[1]), high)
        for key, space, splits in spaces:
            for s, a, b in zip(members, first, last, strict=True):
                if s.split not in splits:
                    continue
                if discrete and b - a + 1 > space.max_bins:
                    need = f"{b - a + 1:.0f} (the integers of {s.label})"
                    yield f"{key}.max_bins: must be >= {need}, got {space.max_bins}"
                    return
                if not discrete and not canonical.fits(a, b, space.discretisation, space.num_decimals, space.max_bins):
                    yield (
                        f"{key}.num_decimals: must leave a number between the 0.001 and 0.999 quantiles of "
                        f"{s.label} ({a:.4g} to {b:.4g}), got {space.num_decimals}"
                    )
                    return


def check(path: str) -> None:
    """Read a file and look for the files and folders that it names.

    Raises
    ------
    UserError
        For the first problem, in one line.
    """
    for problem in absent(load(path)):
        raise UserError(f"{path}: {problem}")


def main(arguments: list[str]) -> int:
    """`check [FILE]` or `merge FILE PROFILE`; returns the exit status."""
    try:
        match arguments:
            case ["check"]:
                check("params.yaml")
            case ["check", path]:
                check(path)
            case ["merge", path, profile]:
                merged = under(path, profile)
                parse(merged, f"{path} + {profile}")
                if "families" in yaml_files.read(profile):
                    command = f"python -m calibnb.pipeline.profiles {profile} FOLDER"
                    raise UserError(f"{profile}: families: must not be changed in a merged file; use {command}")
                del merged["families"]
                text = yaml.safe_dump(merged, sort_keys=False, width=120, default_flow_style=None)
                print(f"# {path} with {profile} laid over it\n{text}", end="")
            case _:
                raise UserError("usage: python -m calibnb.pipeline.params check [FILE] | merge FILE PROFILE")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
