"""Block of params.yaml on ordinary language."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator

from calibnb.benchmarks.params import BenchmarkParams, Named
from calibnb.blocks import Count, count_or_word, line_of_text
from calibnb.trees.params import OpenParams


class LanguageParams(BenchmarkParams):
    """Randomness asked for in ordinary language."""

    items: Annotated[str, BeforeValidator(line_of_text)]
    per_suite: Annotated[int | Literal["all"], count_or_word("all")]
    open: OpenParams
    answers: Count
    max_new_tokens: Count
    batch: Count

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        yield from (f"open.{problem}" for problem in self.open.problems())

    def files(self) -> Iterator[Named]:
        yield Named("items", self.items, ["bundled"], "", "file")
