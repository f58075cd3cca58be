"""Block of params.yaml on structured sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from calibnb.benchmarks.params import BenchmarkParams
from calibnb.blocks import Block, Count, count_or_word
from calibnb.laws.params import SpaceParams
from calibnb.trees.params import OpenParams


class SettingsParams(Block):
    """Which settings of a split are measured: so many, the selected ones, all or none."""

    in_range: Annotated[int | Literal["selected", "all", "none"], count_or_word("all", "none")]
    unseen: Annotated[int | Literal["selected", "all", "none"], count_or_word("selected", "all", "none")]
    held_out: Annotated[int | Literal["selected", "all", "none"], count_or_word("selected", "all", "none")]


class SampledParams(Block):
    """The sampled cross-check: on how many of the measured settings, and with how many draws."""

    settings: Annotated[int | str, count_or_word("all", "none")]
    draws: Count
    max_new_tokens: Count
    batch: Count


class StructuredParams(BenchmarkParams):
    settings: SettingsParams
    space: SpaceParams
    open: OpenParams
    sampled: SampledParams

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        yield from (f"open.{problem}" for problem in self.open.problems())
