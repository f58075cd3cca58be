"""Block of params.yaml on the mixing curve."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from calibnb.benchmarks.mixing import prompts
from calibnb.benchmarks.params import BenchmarkParams
from calibnb.blocks import Count, count_or_word, is_number, refusal


def _probabilities(raw: Any) -> Any:
    fits = isinstance(raw, list) and len(raw) >= 2 and all(is_number(p) and 0 < p < 1 for p in raw)
    if not fits or any(a >= b for a, b in itertools.pairwise(raw)):
        raise refusal("a list of at least two numbers in (0, 1), increasing", raw)
    return tuple(raw)


class MixingParams(BenchmarkParams):
    """One of two words, with a stated probability."""

    probabilities: Annotated[tuple[float, ...], BeforeValidator(_probabilities)]
    pairs: Annotated[int | Literal["all"], count_or_word("all")]
    wordings: Annotated[int | Literal["all"], count_or_word("all")]
    batch: Count

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        pairs, wordings = prompts.table()
        for key, value, most in (("pairs", self.pairs, len(pairs)), ("wordings", self.wordings, len(wordings))):
            if value != "all" and value > most:
                yield f"{key}: must be all or <= {most}, as many as there are, got {value}"
