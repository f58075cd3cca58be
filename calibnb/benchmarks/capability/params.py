"""Block of params.yaml on capability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from calibnb.benchmarks.params import BenchmarkParams, Named, beside_base
from calibnb.blocks import (
    Count,
    Seed,
    folder_or_null,
    list_without_repeats,
    published_or_null,
    refusal,
    sha256_or_null,
)


def _tasks(raw: Any) -> Any:
    if raw != "bundled" and not all(isinstance(name, str) and name for name in list_without_repeats(raw)):
        raise refusal("bundled, or a list of names of the harness's tasks (`lm_eval ls tasks`)", raw)
    return raw if raw == "bundled" else tuple(raw)


class CapabilityParams(BenchmarkParams):
    """What a model can do, by EleutherAI's harness."""

    tasks: Annotated[Literal["bundled"] | tuple[str, ...], BeforeValidator(_tasks)]
    items: Count
    limit: Count | None
    seed: Seed
    batch: Count
    data: Annotated[str | None, BeforeValidator(folder_or_null)]
    irt: Annotated[str | None, BeforeValidator(published_or_null)]
    irt_sha256: Annotated[str | None, BeforeValidator(sha256_or_null)]

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        yield from beside_base(measured)
        if self.irt is not None and self.limit is not None:
            yield f"limit: must be null where irt is given, which needs every answer, got {self.limit}"

    def files(self) -> Iterator[Named]:
        yield Named("data", self.data, ["null"], "", "folder")
        yield Named("irt", self.irt, ["null", "published"], "", "file")
