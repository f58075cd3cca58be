"""Block of params.yaml on language modelling."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from calibnb.blocks import Block, Count, line_of_text


class PerplexityParams(Block):
    """Probability of ordinary text."""

    source: Annotated[str, BeforeValidator(line_of_text)]
    split: Annotated[str, BeforeValidator(line_of_text)]
    bytes_per_slice: Annotated[int, Field(ge=1024)]
    window: Annotated[int, Field(ge=2)]
    stride: Count
