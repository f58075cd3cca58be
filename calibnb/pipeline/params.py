"""params.yaml as typed, checked objects.

`load` reads the file, checks every key and every grid point before anything runs, and raises one `UserError`
that names the key, what is allowed and what was found. There are no defaults: the file says all of it, and
params.yaml explains each key where it stands.

    python -m calibnb.pipeline.params check [params.yaml]                          checks a file
    python -m calibnb.pipeline.params merge params.yaml profiles/demo.yaml > out   lays a profile over it
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import Strict

from calibnb import parameters
from calibnb.benchmarks.baselines.params import BaselinesParams
from calibnb.benchmarks.capability.params import CapabilityParams
from calibnb.benchmarks.language.params import LanguageParams
from calibnb.benchmarks.novelty.params import NoveltyParams
from calibnb.benchmarks.openended.params import OpenEndedParams
from calibnb.benchmarks.perplexity.params import PerplexityParams
from calibnb.benchmarks.positions.params import PositionsParams
from calibnb.benchmarks.structured.params import StructuredParams
from calibnb.blocks import Block, Count, Names, Seeds, Unique, shown
from calibnb.errors import UserError
from calibnb.laws import canonical, specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.family import ParameterError
from calibnb.laws.grids import MAX_GRID, Families, FamilyGrid
from calibnb.laws.params import DataParams, PromptParams, SpaceParams
from calibnb.models.naming import HUB, HUB_SPLIT
from calibnb.models.naming import place as place_of
from calibnb.models.params import ComputeParams, ModelName
from calibnb.models.sources import TABLE
from calibnb.training.params import UNTRAINED, MethodName, Methods, OrdinaryParams, TemperatureParams
from calibnb.yaml_files import read


class Params(Block):
    """The whole file."""

    models: Annotated[tuple[ModelName, ...], Unique, Strict(False)]
    methods: Annotated[tuple[MethodName, ...], Unique, Strict(False)]
    variants: Names
    retention: Names
    numbers: Names
    seeds: Seeds
    bootstrap: Count
    compute: ComputeParams
    prompt: PromptParams
    data: DataParams
    families: Families
    finetune: Methods
    structured: StructuredParams
    openended: OpenEndedParams
    positions: PositionsParams
    novelty: NoveltyParams
    language: LanguageParams
    temperature: TemperatureParams
    baselines: BaselinesParams
    ordinary: OrdinaryParams
    capability: CapabilityParams
    perplexity: PerplexityParams


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a complete parameter file.

    Raises:
        UserError: one line with the file as given, the dotted key, what is allowed and what was found.
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
    model = (HUB, "a hub id org/name")
    data = (HUB_SPLIT, "a split of a hub dataset as org/name:split or org/name:config:split")
    mixtures = {name: params.finetune[name].mixture for name in params.methods}
    novelty, capability = params.novelty, params.capability
    # key, value, words that it may say, what it may be on the hub, what it is here
    rows: list[tuple[str, str | None, Collection[str], tuple[re.Pattern[str], str] | None, str]] = [
        *(("models", name, TABLE, model, "folder") for name in params.models),
        *((f"finetune.{name}.mixture.source", m.source, ["self"], data, "file") for name, m in mixtures.items() if m),
        ("novelty.prompts", novelty.prompts, ["bundled"], data, "file"),
        ("novelty.classifier", novelty.classifier, ["null"], model, "folder"),
        ("novelty.classifier_tokenizer", novelty.classifier_tokenizer, ["null"], model, "folder"),
        ("novelty.reward_model", novelty.reward_model, ["null"], model, "folder"),
        ("language.items", params.language.items, ["bundled"], None, "file"),
        ("capability.data", capability.data, ["null"], None, "folder"),
        ("capability.irt", capability.irt, ["null", "published"], None, "file"),
        ("perplexity.source", params.perplexity.source, ["bundled"], None, "folder"),
    ]
    for key, value, words, hub, kind in rows:
        if value is None or value in words or (hub is not None and hub[0].fullmatch(value)):
            continue
        if not (Path(value).is_file() if kind == "file" else Path(value).is_dir()):
            allowed = [*words, *([hub[1]] if hub else [])]
            yield f"{key}: must be {', '.join(allowed)} or a {kind}, got {value}, where no {kind} is"


def merge(base: Mapping[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with a profile's keys laid over it.

    Blocks merge key by key; anything else replaces what was there, and so does a grid ({lin: ...} over {log:
    ...}). A null in place of a block leaves that block out, but for a mixture, which is null where there is none.
    """
    result = dict(base)
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
    known = ", ".join(params.finetune)
    for method in params.methods:
        if method not in params.finetune:
            yield f"methods: must be among the blocks of finetune ({known}), got {shown(method)}"
    possible = (*UNTRAINED, *params.methods)
    lists = {"variants": params.variants, "retention": params.retention, "numbers": params.numbers}
    for key, variants in lists.items():
        for variant in variants:
            if variant not in possible:
                yield f"{key}: must be among {', '.join(possible)}, got {shown(variant)}"
    if "base" not in params.retention:
        yield f"retention: must hold base, which the others are compared with, got {shown(params.retention)}"
    if "temperature" in params.retention:
        yield "retention: must be base and methods (the harness does not know a temperature), got temperature"
    for key in ("variants", "retention"):
        for variant in lists[key]:
            if variant not in params.numbers:
                yield f"numbers: must hold all of {key}, got {shown(params.numbers)} without {variant}"
    fitted = params.temperature
    if fitted.method not in params.finetune:
        known = ", ".join(params.finetune)
        yield f"temperature.method: must be among the blocks of finetune ({known}), got {shown(fitted.method)}"
    for name, method_params in params.finetune.items():
        prompts, passes = method_params.prompts_per_step, method_params.accumulation_steps
        if passes > prompts:
            yield f"finetune.{name}.accumulation_steps: must be <= prompts_per_step = {prompts}, got {passes}"
        mixture, near = method_params.mixture, method_params.kl_to_base
        if mixture is None and near:
            yield f"finetune.{name}.kl_to_base: must be 0 without a mixture, whose prompts it needs, got {near}"
        if method_params.estimator == "trie" and method_params.average == "path":
            yield f"finetune.{name}.average: must be tokens where estimator is trie, which has no paths, got path"
        if mixture is not None and not (near or mixture.share):
            yield f"finetune.{name}.mixture.share: must be > 0 where kl_to_base is 0, got {mixture.share}"
    if not any(grid.train for grid in params.families.values()):
        yield "families: must be at least one family with a train grid, got none"
    if params.capability.irt is not None and params.capability.limit is not None:
        got = params.capability.limit
        yield f"capability.limit: must be null where irt is given, which needs every answer, got {got}"
    if params.perplexity.stride >= params.perplexity.window:
        got, most = params.perplexity.stride, params.perplexity.window
        yield f"perplexity.stride: must be < window = {most}, got {got}"
    for key, search in (("structured", params.structured.open), ("language", params.language.open)):
        nodes, most = search.nodes_per_pass, search.max_nodes
        if nodes > most:
            yield f"{key}.open.nodes_per_pass: must be <= max_nodes = {most}, got {nodes}"


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
    measured = [f"{model}-{variant}" for model in params.models for variant in params.numbers]
    for key, stages in (("methods", runs), ("numbers", measured)):
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
    chosen = params.structured.settings
    total = 0
    for key, split, choice in (
        ("in_range", "validation", chosen.in_range),
        ("unseen", "unseen", chosen.unseen),
        ("held_out", "held_out", chosen.held_out),
    ):
        pool = [s for s in settings if s.split == split]
        if isinstance(choice, int) and choice > len(pool):
            yield f"structured.settings.{key}: must be <= {len(pool)} (the {split} settings), got {choice}"
            return
        total += len(specs.choose(settings, split, choice))  # type: ignore[arg-type]
    if not total:
        yield "structured.settings: must be at least one setting, got none"
    sampled = params.structured.sampled.settings
    if isinstance(sampled, int) and sampled > total:
        yield f"structured.sampled.settings: must be <= {total} (the measured settings), got {sampled}"


def _space_problems(params: Params, settings: list[specs.Spec]) -> Iterator[str]:
    """Settings that do not fit an output space: too many integers, or no number between the quantiles."""
    spaces: list[tuple[str, SpaceParams, tuple[str, ...]]] = [
        (f"finetune.{m}.space", params.finetune[m].space, ("train", "validation"))
        for m in dict.fromkeys([*params.methods, params.temperature.method])
    ]
    spaces.append(("structured.space", params.structured.space, ("validation", "unseen", "held_out")))
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
    """Read a file and look for the files and folders that it names. Raises UserError with the first problem's line."""
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
                merged = merge(read(path), read(profile))
                parse(merged, f"{path} + {profile}")
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
