"""params.yaml as typed, checked objects.

`load` reads the file, checks every key and every grid point before anything runs, and raises one `UserError`
that names the key, what is allowed and what was found. There are no defaults: the file says all of it, and
params.yaml explains each key where it stands.

    python -m calibnb.params check [params.yaml]                          checks a file
    python -m calibnb.params merge params.yaml profiles/demo.yaml > out   lays a profile over it
"""

from __future__ import annotations

import math
import re
import string
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    Strict,
    ValidationError,
)
from pydantic_core import ErrorDetails

from calibnb import categories, laws, specs
from calibnb.blocks import MAX_GRID, Block, FamilyGrid, SpaceParams, refusal, shown
from calibnb.errors import UserError
from calibnb.families import FAMILIES, ParameterError
from calibnb.sources import HUB, TABLE, requirement
from calibnb.sources import place as place_of

# Variants that nothing is trained for: the model as it comes, and at a fitted temperature.
UNTRAINED = ("base", "temperature")


# ------------------------------------------------------------------------------------------------- blocks


def _unique(raw: Any) -> Any:
    if not isinstance(raw, list) or not raw:
        raise refusal("a list with at least one entry", raw)
    if any(raw[i] in raw[:i] for i in range(len(raw))):
        raise refusal("a list without repeats", raw)
    return tuple(raw)


HUB_SPLIT = re.compile(rf"({HUB.pattern}):(?:([\w.+-]+):)?(\w+(?:\.\w+)*)")  # org/name:split, org/name:config:split


def _model_name(raw: Any) -> Any:
    needed = requirement(raw if isinstance(raw, str) else "")
    if needed is not None:
        raise refusal(needed, raw)
    return raw


def _method_name(raw: Any) -> Any:
    # It is part of stage names and command lines, and files that `merge` makes of this one spell it without quotes.
    name = isinstance(raw, str) and re.fullmatch(r"[a-z0-9][a-z0-9_-]*", raw)
    if not name or raw in UNTRAINED or not _reads_as_text(raw):
        names = " and ".join(UNTRAINED)
        raise refusal(f'a name of lower-case letters, digits, "_" and "-" that YAML reads as text, not {names}', raw)
    return raw


def _reads_as_text(raw: str) -> bool:
    try:
        return bool(decode(raw, "") == raw)
    except UserError:
        return False


def _device(raw: Any) -> Any:
    if not isinstance(raw, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", raw):
        raise refusal("auto, cpu, cuda or cuda:N", raw)
    return raw


def _template(raw: Any) -> Any:
    needed = ["distribution", "parameters"]
    try:
        fields = (
            [f for f in string.Formatter().parse(raw) if f[1] is not None] if isinstance(raw, str) else []
        )
    except ValueError:  # unbalanced braces
        fields = []
    if sorted(f[1] or "" for f in fields) != needed or any(f[2] or f[3] for f in fields):
        raise refusal("text that holds {distribution} and {parameters} once each and no other braces", raw)
    return raw


def _choice(*words: str) -> Any:
    def check(raw: Any) -> Any:
        if (raw in words and isinstance(raw, str)) or (
            isinstance(raw, int) and not isinstance(raw, bool) and raw >= 1
        ):
            return raw
        raise refusal(f"an integer >= 1 or one of {', '.join(words)}", raw)

    return BeforeValidator(check)


def _line_of_text(raw: Any) -> Any:
    if not isinstance(raw, str) or not raw.strip() or len(raw.splitlines()) != 1:
        raise refusal("one line of text", raw)
    return raw


def _source(raw: Any) -> Any:
    if raw is not None and not (isinstance(raw, str) and (HUB.fullmatch(raw) or raw.startswith(("./", "/")))):
        raise refusal("null, a hub id org/name, or a folder from ./ or / on", raw)
    return raw


def _tasks(raw: Any) -> Any:
    if raw != "bundled" and not all(isinstance(name, str) and name for name in _unique(raw)):
        raise refusal("bundled, or a list of names of the harness's tasks (`lm_eval ls tasks`)", raw)
    return raw if raw == "bundled" else tuple(raw)


def _folder(raw: Any) -> Any:
    if raw is not None and not (isinstance(raw, str) and raw.startswith(("./", "/"))):
        raise refusal("null, or a folder from ./ or / on", raw)
    return raw


def _artefact(raw: Any) -> Any:
    if raw is not None and raw != "published" and not (isinstance(raw, str) and raw.startswith(("./", "/"))):
        raise refusal("null, published, or a file from ./ or / on", raw)
    return raw


def _sha256(raw: Any) -> Any:
    if raw is not None and not (isinstance(raw, str) and re.fullmatch(r"[0-9a-f]{64}", raw)):
        raise refusal("null, or a sha256 of 64 hexadecimal digits", raw)
    return raw


def _categories(raw: Any) -> Any:
    return raw if raw == "all" else _category_names(raw)


def _category_names(raw: Any) -> Any:
    known = categories.table()
    for name in _unique(raw):
        if not isinstance(name, str) or name not in known:
            raise refusal("a list of names from calibnb/prompts/categories.yaml", name)
    return tuple(raw)


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
ModelName = Annotated[str, BeforeValidator(_model_name)]
MethodName = Annotated[str, BeforeValidator(_method_name)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Unique = BeforeValidator(_unique)


class ComputeParams(Block):
    device: Annotated[str, BeforeValidator(_device)]
    dtype: Literal["auto", "bfloat16", "float32"]
    trust_remote_code: bool


class PromptParams(Block):
    template: Annotated[str, BeforeValidator(_template)]
    parameter_names: Literal["words", "symbols"]


class DataParams(Block):
    validation_share: Annotated[float, Field(gt=0, le=0.5)]
    significant_digits: Annotated[int, Field(ge=1, le=4)]  # `specs.number` prints 4


class LoraParams(Block):
    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Positive
    dropout: Share
    targets: Literal["attention", "all-linear"]


class MixtureParams(Block):
    """Ordinary examples beside calibration: see `mixture`."""

    source: Annotated[str, BeforeValidator(_line_of_text)]
    share: Share
    prompts_per_step: Count


class FinetuneParams(Block):
    """One method of fine-tuning; params.yaml says what each key does."""

    estimator: Literal["paths", "samples", "trie"]
    draws: Literal["iid", "stratified"]
    draws_per_prompt: Count
    completions: Literal["own", "other"]
    parameters: Literal["grid", "continuous"]
    family_weights: Literal["settings", "equal"]
    space: SpaceParams
    average: Literal["tokens", "path"]
    epochs: Positive
    prompts_per_step: Count
    accumulation_steps: Count
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_share: Share
    max_grad_norm: Positive | None
    validations: Count
    mixture: MixtureParams | None
    kl_to_base: Annotated[float, Field(ge=0)]
    lora: LoraParams


class SettingsParams(Block):
    """Which settings of a split are measured: so many, the selected ones, all or none."""

    in_range: Annotated[int | Literal["selected", "all", "none"], _choice("all", "none")]
    unseen: Annotated[int | Literal["selected", "all", "none"], _choice("selected", "all", "none")]
    held_out: Annotated[int | Literal["selected", "all", "none"], _choice("selected", "all", "none")]


class OpenParams(Block):
    """The search for the exact law of a model's answers: see `answers`."""

    tolerance: Annotated[float, Field(gt=0, lt=1)]
    max_nodes: Count
    nodes_per_pass: Count


class SampledParams(Block):
    """The sampled cross-check: on how many of the measured settings, and with how many draws."""

    settings: Annotated[int | str, _choice("all", "none")]
    draws: Count
    max_new_tokens: Count
    batch: Count


class StructuredParams(Block):
    settings: SettingsParams
    space: SpaceParams
    open: OpenParams
    sampled: SampledParams


class OpenEndedParams(Block):
    """One random member of a category."""

    categories: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_categories)]
    draws: Count
    max_new_tokens: Count
    batch: Count


class PositionsParams(Block):
    """Multiple-choice questions that the model writes."""

    domain: Annotated[str, BeforeValidator(_line_of_text)]
    answers: Count
    max_new_tokens: Count
    questions: Count
    batch: Count


class NoveltyParams(Block):
    """Several answers to prompts with many right ones, and who judges them."""

    prompts: Annotated[str, BeforeValidator(_line_of_text)]
    generations: Count
    max_new_tokens: Count
    batch: Count
    classifier: Annotated[str | None, BeforeValidator(_source)]
    classifier_tokenizer: Annotated[str | None, BeforeValidator(_source)]
    classifier_threshold: Annotated[float, Field(gt=0, lt=1)]
    reward_model: Annotated[str | None, BeforeValidator(_source)]
    judge_batch: Count
    patience: Annotated[float, Field(ge=0, le=1)]


class LanguageParams(Block):
    """Randomness asked for in ordinary language."""

    items: Annotated[str, BeforeValidator(_line_of_text)]
    per_suite: Annotated[int | Literal["all"], _choice("all")]
    open: OpenParams
    answers: Count
    max_new_tokens: Count
    batch: Count


class TemperatureParams(Block):
    """The baseline of one scalar: on whose loss it is fitted, and on how many train settings."""

    method: MethodName
    settings: Count


class BaselinesParams(Block):
    """Inference-time baselines that ask in another way, and plain questions beside them."""

    settings: Count
    categories: Annotated[tuple[str, ...], BeforeValidator(_category_names)]
    draws: Count
    questions: Count
    prompts: Count
    items: Count
    max_new_tokens: Count
    batch: Count


class OrdinaryParams(Block):
    """The model's own answers to ordinary prompts, which `mixture.source: self` mixes in."""

    draws: Count
    max_new_tokens: Count
    batch: Count


class CapabilityParams(Block):
    """What a model can do, by EleutherAI's harness."""

    tasks: Annotated[Literal["bundled"] | tuple[str, ...], BeforeValidator(_tasks)]
    items: Count
    limit: Count | None
    seed: Seed
    batch: Count
    data: Annotated[str | None, BeforeValidator(_folder)]
    irt: Annotated[str | None, BeforeValidator(_artefact)]
    irt_sha256: Annotated[str | None, BeforeValidator(_sha256)]


class PerplexityParams(Block):
    """Probability of ordinary text."""

    source: Annotated[str, BeforeValidator(_line_of_text)]
    split: Annotated[str, BeforeValidator(_line_of_text)]
    bytes_per_slice: Annotated[int, Field(ge=1024)]
    window: Annotated[int, Field(ge=2)]
    stride: Count


class Params(Block):
    """The whole file."""

    models: Annotated[tuple[ModelName, ...], Unique, Strict(False)]
    methods: Annotated[tuple[MethodName, ...], Unique, Strict(False)]
    variants: Annotated[tuple[str, ...], Unique, Strict(False)]
    retention: Annotated[tuple[str, ...], Unique, Strict(False)]
    numbers: Annotated[tuple[str, ...], Unique, Strict(False)]
    seeds: Annotated[tuple[Seed, ...], Unique, Strict(False)]
    bootstrap: Count
    compute: ComputeParams
    prompt: PromptParams
    data: DataParams
    families: dict[str, FamilyGrid]
    finetune: dict[MethodName, FinetuneParams]
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


# ------------------------------------------------------------------------------------------ reading a file


TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 5e-4 as a number, as YAML 1.2 (and DVC) does.

    It refuses a key that is given twice, and integers that the two versions of YAML read differently.
    """


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.tag != TEXT:
            raise yaml.constructor.ConstructorError(problem="a key is not text", problem_mark=key.start_mark)
        if key.value in seen:
            problem = f"key {key.value} is given twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def decode(text: str, where: str) -> Any:
    """The value of a YAML text; `where` stands for it in errors. Raises `UserError` for what is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{where}: {line}must be YAML: {' '.join(str(error.problem).split())}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: must be YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{where}: must be YAML: brackets within brackets, too deep to be read") from None
    # What looks like a date, a number or a tagged value and is none, such as 2020-99-99, `yaml` leaves to Python.
    except (ValueError, LookupError, ArithmeticError, AttributeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{where}: must be YAML: a value cannot be read ({reason})") from None


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """An integer, unless YAML 1.1 and 1.2 differ in it: DVC's reading is what stages get on their command lines."""
    if re.match(r"[-+]?0[_0-7]|.*:", node.value):  # octal or decimal; base 60 or text
        problem = f"{node.value} is another number to DVC; write it in decimal digits, without 0 before them"
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
    return loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read(path: str | Path) -> dict[str, Any]:
    """A YAML file as nested dictionaries. Raises `UserError` where it is missing or not a mapping of keys."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: must be a readable file, got: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: must be UTF-8 text") from None
    raw = decode(text, str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must be a mapping of keys to values, got {shown(raw)}")
    return raw


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a complete parameter file.

    Raises:
        UserError: one line with the file as given, the dotted key, what is allowed and what was found.
    """
    return parse(read(path), str(path))


def parse(raw: Mapping[str, Any], source: str = "params.yaml") -> Params:
    """Check parameters that are already in memory; `source` stands in front of every message."""
    try:
        params = Params.model_validate(dict(raw))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A misspelt key is both unknown and missing: the first says more.
        unknown = [e for e in errors if e["type"] == "extra_forbidden"]
        raise UserError(f"{source}: {_line((unknown or errors)[0])}") from None
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
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and not {"lin", "log"} & (old.keys() | value.keys())
        ):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


# ------------------------------------------------------------------------------------------------ messages


def _line(error: ErrorDetails) -> str:
    """A pydantic error as `dotted.key: must be ..., got ...`."""
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    kind, got, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "calibnb":
        return f"{key}: {error['msg']}"
    if kind == "extra_forbidden":
        return f"{key}: unknown key; allowed: {', '.join(_allowed(error['loc'][:-1]))}"
    if kind == "missing":
        return f"{key}: must be given, got nothing"
    bounds = {
        "greater_than": (">", "gt"),
        "greater_than_equal": (">=", "ge"),
        "less_than": ("<", "lt"),
        "less_than_equal": ("<=", "le"),
    }
    if kind in bounds:
        sign, name = bounds[kind]
        return f"{key}: must be {sign} {specs.number(context[name])}, got {shown(got)}"
    if kind == "literal_error":
        allowed = re.sub(r"'([^']*)'", r"\1", context["expected"]).replace(" or ", ", ")
        return f"{key}: must be one of {allowed}, got {shown(got)}"
    names = {
        "int_type": "an integer",
        "int_from_float": "an integer",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "text",
        "tuple_type": "a list",
        "dict_type": "a block of keys",
        "model_type": "a block of keys",
    }
    return f"{key}: must be {names.get(kind, 'valid')}, got {shown(got)}"


def _allowed(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the block at `loc`."""
    kind: Any = Params
    for part in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
            if get_origin(kind) is UnionType:  # a block or null
                kind = get_args(kind)[0]
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
    return list(kind.model_fields)


# ------------------------------------------------------------------------------------------------- checks


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
        printed = {
            name: np.array([dict(s.parameters)[name] for s in members]) for name, _ in members[0].parameters
        }
        law = FAMILIES[family].frozen(**printed)
        low, high = (np.broadcast_to(x, len(members)) for x in FAMILIES[family].support(**printed))
        discrete = FAMILIES[family].discrete
        first = np.where(np.isinf(low) | (not discrete), law.ppf(laws.TAILS[0]), low)
        last = np.where(np.isinf(high) | (not discrete), law.ppf(laws.TAILS[1]), high)
        for key, space, splits in spaces:
            for s, a, b in zip(members, first, last, strict=True):
                if s.split not in splits:
                    continue
                if discrete and b - a + 1 > space.max_bins:
                    need = f"{b - a + 1:.0f} (the integers of {s.label})"
                    yield f"{key}.max_bins: must be >= {need}, got {space.max_bins}"
                    return
                if not discrete and not laws.fits(
                    a, b, space.discretisation, space.num_decimals, space.max_bins
                ):
                    yield (
                        f"{key}.num_decimals: must leave a number between the 0.001 and 0.999 quantiles of "
                        f"{s.label} ({a:.4g} to {b:.4g}), got {space.num_decimals}"
                    )
                    return


# ------------------------------------------------------------------------------------------- command line


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
                raise UserError("usage: python -m calibnb.params check [FILE] | merge FILE PROFILE")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
