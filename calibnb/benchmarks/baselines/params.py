"""Block of params.yaml on other ways of asking."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Strict

from calibnb.benchmarks.openended.params import category_names
from calibnb.benchmarks.params import BenchmarkParams
from calibnb.blocks import Count, Unique

Way = Literal["ssot", "verbalised", "ssot-system", "verbalised-system"]


class BaselinesParams(BenchmarkParams):
    """Inference-time baselines that ask in another way, and plain questions beside them."""

    ways: Annotated[tuple[Way, ...], Unique, Strict(False)]
    settings: Count
    categories: Annotated[tuple[str, ...], BeforeValidator(category_names)]
    draws: Count
    questions: Count
    prompts: Count
    items: Count
    max_new_tokens: Count
    batch: Count
