"""Block of params.yaml on telling where a law lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from calibnb.benchmarks.params import BenchmarkParams
from calibnb.blocks import Block, Count
from calibnb.trees.params import OpenParams


class ToldSettings(Block):
    """How many settings of a split are asked, spread over its families."""

    in_range: Count
    unseen: Count
    held_out: Count


class ToldParams(BenchmarkParams):
    how: Literal["moments", "quantiles"]
    settings: ToldSettings
    open: OpenParams

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        yield from (f"open.{problem}" for problem in self.open.problems())
