"""YAML files as nested dictionaries, read as DVC reads them; what two readers would take differently is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from calibnb.blocks import shown
from calibnb.errors import UserError

TEXT = "tag:yaml.org,2002:str"


class Loader(yaml.SafeLoader):
    """SafeLoader that reads 5e-4 as a number, as YAML 1.2 (and DVC) does.

    It refuses a key that is given twice, and integers that the two versions of YAML read differently.
    """


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
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


Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def decode(text: str, where: str) -> Any:
    """The value of a YAML text; `where` stands for it in errors.

    Raises
    ------
    UserError
        For what is no YAML.
    """
    try:
        return yaml.load(text, Loader)
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


def _integer(loader: Loader, node: yaml.ScalarNode) -> int:
    """An integer, unless YAML 1.1 and 1.2 differ in it: DVC's reading is what stages get on their command lines."""
    if re.match(r"[-+]?0[_0-7]|.*:", node.value):  # octal or decimal; base 60 or text
        problem = f"{node.value} is another number to DVC; write it in decimal digits, without 0 before them"
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
    return loader.construct_yaml_int(node)


Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read(path: str | Path) -> dict[str, Any]:
    """A YAML file as nested dictionaries.

    Raises
    ------
    UserError
        Where it is missing or not a mapping of keys.
    """
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
