"""params.yaml block by block: a stage reads those that it needs, and depends on no others.

    study = parameters.load("params.yaml", seeds=Seeds, benchmarks={"structured": StructuredParams})
    study.benchmarks.structured.open.tolerance

There are no defaults: the file says all of it, and params.yaml explains each key where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError, create_model
from pydantic_core import ErrorDetails

from calibnb.blocks import Block, shown
from calibnb.errors import UserError
from calibnb.yaml_files import read

Whole = TypeVar("Whole", bound=Block)


def load(path: str | Path, **blocks: Any) -> Any:
    """The named keys of a parameter file, each of the type that is given for it, as attributes.

    A dictionary in place of a type names keys below that one. Other keys are not looked at: the stage `check` has
    checked the file as a whole before any that loads a part.

    Raises
    ------
    UserError
        One line with the file as given, the dotted key, what is allowed and what was found.
    """
    given = read(path)
    return parse(_part(blocks), _taken(given, blocks), str(path))


def _part(blocks: Mapping[str, Any]) -> type[Block]:
    """A block of the named keys; a key of several blocks becomes a block of those."""
    fields: Any = {
        key: (_part(kind) if isinstance(kind, Mapping) else kind, ...)  # a model of its own
        for key, kind in blocks.items()
    }
    return create_model("Part", __base__=Block, **fields)


def _taken(given: Mapping[str, Any], blocks: Mapping[str, Any]) -> dict[str, Any]:
    """What a file has of the named keys."""
    found = {key: given[key] for key in blocks if key in given}
    return {
        key: _taken(value, blocks[key]) if isinstance(blocks[key], Mapping) and isinstance(value, Mapping) else value
        for key, value in found.items()
    }


def parse(kind: type[Whole], raw: Mapping[str, Any], source: str) -> Whole:
    """Parameters that are already in memory as an object of `kind`; `source` stands in front of an error's line."""
    try:
        return kind.model_validate(dict(raw))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A misspelt key is both unknown and missing: the first says more.
        unknown = [e for e in errors if e["type"] == "extra_forbidden"]
        raise UserError(f"{source}: {_line((unknown or errors)[0], kind)}") from None


def _line(error: ErrorDetails, root: type[BaseModel]) -> str:
    """A pydantic error as `dotted.key: must be ..., got ...`."""
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    kind, got, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "calibnb":
        return f"{key}: {error['msg']}"
    if kind == "extra_forbidden":
        return f"{key}: unknown key; allowed: {', '.join(_allowed(error['loc'][:-1], root))}"
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
        return f"{key}: must be {sign} {_bound(context[name])}, got {shown(got)}"
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


def _allowed(loc: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The keys of the block at `loc`."""
    kind: Any = root
    for part in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
            if get_origin(kind) is UnionType:  # a block or null
                kind = get_args(kind)[0]
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
    return list(kind.model_fields)


def _bound(x: float) -> str:
    return str(int(x)) if float(x).is_integer() else f"{x:.4g}"
