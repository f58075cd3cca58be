"""Block of params.yaml on answer positions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from calibnb.benchmarks.params import BenchmarkParams
from calibnb.benchmarks.positions import questions as bundled
from calibnb.blocks import Block, Count, count_or_word, line_of_text


class ChoiceParams(Block):
    """The letter of a right answer, chosen for questions that are given."""

    questions: Annotated[int, Field(ge=1, le=len(bundled.table()))]
    orders: Annotated[int, Field(ge=1, le=len(bundled.PRESENTATIONS))]
    batch: Count


class PositionsParams(BenchmarkParams):
    """Where right answers stand: letters chosen, and questions that the model writes."""

    choice: ChoiceParams
    domain: Annotated[str, BeforeValidator(line_of_text)]
    answers: Annotated[int | Literal["none"], count_or_word("none")]
    max_new_tokens: Count
    questions: Count
    batch: Count
