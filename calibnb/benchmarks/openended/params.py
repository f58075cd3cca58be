"""Block of params.yaml on open-ended generation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from calibnb.benchmarks.openended import categories as openended_categories
from calibnb.benchmarks.params import BenchmarkParams
from calibnb.blocks import Count, list_without_repeats, refusal


def _categories(raw: Any) -> Any:
    return raw if raw == "all" else category_names(raw)


def category_names(raw: Any) -> Any:
    known = openended_categories.table()
    for name in list_without_repeats(raw):
        if not isinstance(name, str) or name not in known:
            raise refusal("a list of names from calibnb/benchmarks/openended/categories.yaml", name)
    return tuple(raw)


class OpenEndedParams(BenchmarkParams):
    """One random member of a category."""

    categories: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_categories)]
    draws: Count
    max_new_tokens: Count
    batch: Count
