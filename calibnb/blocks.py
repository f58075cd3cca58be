"""What all blocks of params.yaml have in common.

Each is declared beside what it configures; `parameters` reads them, and `pipeline.params` puts them together and checks
the file as a whole.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

LARGEST = 1e15  # size of a grid's numbers: whole ones beyond are no longer exact as floats


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


def list_without_repeats(raw: Any) -> Any:
    if not isinstance(raw, list) or not raw:
        raise refusal("a list with at least one entry", raw)
    if any(raw[i] in raw[:i] for i in range(len(raw))):
        raise refusal("a list without repeats", raw)
    return tuple(raw)


def count_or_word(*words: str) -> Any:
    def check(raw: Any) -> Any:
        if (raw in words and isinstance(raw, str)) or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 1):
            return raw
        raise refusal(f"an integer >= 1 or one of {', '.join(words)}", raw)

    return BeforeValidator(check)


def line_of_text(raw: Any) -> Any:
    if not isinstance(raw, str) or not raw.strip() or len(raw.splitlines()) != 1:
        raise refusal("one line of text", raw)
    return raw


def folder_or_null(raw: Any) -> Any:
    if raw is not None and not (isinstance(raw, str) and raw.startswith(("./", "/"))):
        raise refusal("null, or a folder from ./ or / on", raw)
    return raw


def published_or_null(raw: Any) -> Any:
    if raw is not None and raw != "published" and not (isinstance(raw, str) and raw.startswith(("./", "/"))):
        raise refusal("null, published, or a file from ./ or / on", raw)
    return raw


def sha256_or_null(raw: Any) -> Any:
    if raw is not None and not (isinstance(raw, str) and re.fullmatch(r"[0-9a-f]{64}", raw)):
        raise refusal("null, or a sha256 of 64 hexadecimal digits", raw)
    return raw


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Budget = Positive | None
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Unique = BeforeValidator(list_without_repeats)
Names = Annotated[tuple[str, ...], Unique, Strict(False)]
Seeds = Annotated[tuple[Seed, ...], Unique, Strict(False)]
