"""Block of params.yaml on ordinary language."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from calibnb.blocks import Block, Count, count_or_word, line_of_text
from calibnb.trees.params import OpenParams


class LanguageParams(Block):
    """Randomness asked for in ordinary language."""

    items: Annotated[str, BeforeValidator(line_of_text)]
    per_suite: Annotated[int | Literal["all"], count_or_word("all")]
    open: OpenParams
    answers: Count
    max_new_tokens: Count
    batch: Count
