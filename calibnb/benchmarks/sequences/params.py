"""Block of params.yaml on many draws in one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from calibnb.benchmarks.params import BenchmarkParams
from calibnb.benchmarks.sequences import prompts
from calibnb.blocks import Count, count_or_word, list_without_repeats, refusal

SHORTEST = 3  # draws in an answer: fewer have no order to speak of


def _lengths(raw: Any) -> Any:
    for length in list_without_repeats(raw):
        if isinstance(length, bool) or not isinstance(length, int) or length < SHORTEST:
            raise refusal(f"a list of integers >= {SHORTEST}", raw)
    return tuple(raw)


class SequencesParams(BenchmarkParams):
    """Many draws in one answer."""

    laws: Annotated[int | Literal["all"], count_or_word("all")]
    wordings: Count
    lengths: Annotated[tuple[int, ...], BeforeValidator(_lengths)]
    lists: Annotated[int | Literal["all"], count_or_word("all")]
    answers: Count
    tokens_per_draw: Count
    batch: Count

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        most = prompts.sizes()
        for key, given in {"laws": self.laws, "lists": self.lists, "wordings": self.wordings}.items():
            if given != "all" and given > most[key]:
                yield f"{key}: must be <= {most[key]}, as many as there are, got {given}"
