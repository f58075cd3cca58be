"""Block of params.yaml on answer positions."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from calibnb.benchmarks.params import BenchmarkParams
from calibnb.blocks import Count, line_of_text


class PositionsParams(BenchmarkParams):
    """Multiple-choice questions that the model writes."""

    domain: Annotated[str, BeforeValidator(line_of_text)]
    answers: Count
    max_new_tokens: Count
    questions: Count
    batch: Count
