"""Blocks of params.yaml on laws: how they are asked for, split and put on a grid of answers."""

from __future__ import annotations

import string
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from calibnb.blocks import Block, refusal
from calibnb.laws.grids import Discretisation

Decimals = Annotated[int, Field(ge=0, le=8)]
Bins = Annotated[int, Field(ge=2, le=65536)]


class SpaceParams(Block):
    """How a continuous law is put on a decimal grid: see `canonical.answer_law`."""

    discretisation: Discretisation
    num_decimals: Decimals
    max_bins: Bins


def _template(raw: Any) -> Any:
    needed = ["distribution", "parameters"]
    try:
        fields = [f for f in string.Formatter().parse(raw) if f[1] is not None] if isinstance(raw, str) else []
    except ValueError:  # unbalanced braces
        fields = []
    if sorted(f[1] or "" for f in fields) != needed or any(f[2] or f[3] for f in fields):
        raise refusal("text that holds {distribution} and {parameters} once each and no other braces", raw)
    return raw


class PromptParams(Block):
    template: Annotated[str, BeforeValidator(_template)]
    parameter_names: Literal["words", "symbols"]


class DataParams(Block):
    validation_share: Annotated[float, Field(gt=0, le=0.5)]
    significant_digits: Annotated[int, Field(ge=1, le=4)]  # `specs.number` prints 4
