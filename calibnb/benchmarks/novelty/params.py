"""Block of params.yaml on NoveltyBench."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from calibnb.benchmarks.params import BenchmarkParams, Named
from calibnb.blocks import Count, line_of_text, refusal
from calibnb.models.places import HUB


def _source(raw: Any) -> Any:
    if raw is not None and not (isinstance(raw, str) and (HUB.fullmatch(raw) or raw.startswith(("./", "/")))):
        raise refusal("null, a hub id org/name, or a folder from ./ or / on", raw)
    return raw


class NoveltyParams(BenchmarkParams):
    """Several answers to prompts with many right ones, and who judges them."""

    prompts: Annotated[str, BeforeValidator(line_of_text)]
    generations: Count
    max_new_tokens: Count
    batch: Count
    classifier: Annotated[str | None, BeforeValidator(_source)]
    classifier_tokenizer: Annotated[str | None, BeforeValidator(_source)]
    classifier_threshold: Annotated[float, Field(gt=0, lt=1)]
    reward_model: Annotated[str | None, BeforeValidator(_source)]
    judge_batch: Count
    patience: Annotated[float, Field(ge=0, le=1)]

    def files(self) -> Iterator[Named]:
        yield Named("prompts", self.prompts, ["bundled"], "data", "file")
        for key in ("classifier", "classifier_tokenizer", "reward_model"):
            yield Named(key, self.model_dump()[key], ["null"], "model", "folder")
