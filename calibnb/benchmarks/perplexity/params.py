"""Block of params.yaml on language modelling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from calibnb.benchmarks.params import BenchmarkParams, Named, beside_base
from calibnb.blocks import Count, line_of_text


class PerplexityParams(BenchmarkParams):
    """Probability of ordinary text."""

    source: Annotated[str, BeforeValidator(line_of_text)]
    split: Annotated[str, BeforeValidator(line_of_text)]
    bytes_per_slice: Annotated[int, Field(ge=1024)]
    window: Annotated[int, Field(ge=2)]
    stride: Count

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        yield from beside_base(measured)
        if self.stride >= self.window:
            yield f"stride: must be < window = {self.window}, got {self.stride}"

    def files(self) -> Iterator[Named]:
        yield Named("source", self.source, ["bundled"], "", "folder")
