"""What the blocks of all benchmarks have in common: on which variants they are measured, and what files they name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from calibnb.blocks import Block, list_without_repeats, refusal
from calibnb.models.places import HUB, HUB_SPLIT
from calibnb.training.params import TEMPERATURE


@dataclass(frozen=True)
class Named:
    """A local file or folder that a parameter may name.

    Attributes
    ----------
    words : Collection[str]
        What the parameter may say instead; "null" stands for nothing.
    hub : {"model", "data", ""}
        What it may be on the hub: a model, a data set, or neither.
    """

    key: str
    value: str | None
    words: Collection[str]
    hub: Literal["model", "data", ""]
    kind: Literal["file", "folder"]

    def problem(self) -> str | None:
        """A line where it is not there, seen from the current folder."""
        patterns = {"model": HUB, "data": HUB_SPLIT}
        if self.value is None or self.value in self.words:
            return None
        if self.hub and patterns[self.hub].fullmatch(self.value):
            return None
        if Path(self.value).is_file() if self.kind == "file" else Path(self.value).is_dir():
            return None
        on_hub = {
            "model": ["a hub id org/name"],
            "data": ["a split of a hub dataset as org/name:split or org/name:config:split"],
            "": [],
        }[self.hub]
        allowed = ", ".join([*self.words, *on_hub])
        return f"{self.key}: must be {allowed} or a {self.kind}, got {self.value}, where no {self.kind} is"


def _variants(raw: Any) -> Any:
    if raw == "all":
        return raw
    if not isinstance(raw, list):
        raise refusal("all, or a list of names", raw)
    return list_without_repeats(raw)


class BenchmarkParams(Block):
    """A block below `benchmarks`."""

    variants: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_variants)]

    def measured(self, variants: Sequence[str]) -> tuple[str, ...]:
        """Those of the study's `variants` that this benchmark is measured on, in its own order."""
        return tuple(variants) if self.variants == "all" else self.variants

    def problems(self, measured: Sequence[str]) -> Iterator[str]:
        """What is wrong between keys, as ``key: must be ..., got ...``.

        Parameters
        ----------
        measured : Sequence[str]
            The variants, spelt out.
        """
        yield from ()

    def files(self) -> Iterator[Named]:
        """The local files and folders that the block names."""
        yield from ()


def beside_base(measured: Sequence[str]) -> Iterator[str]:
    """What is wrong with the variants of a benchmark that holds trained ones against the model as it comes."""
    if "base" not in measured:
        yield f"variants: must hold base, which the others are compared with, got {', '.join(measured)}"
    if TEMPERATURE in measured:
        yield "variants: must be base and methods (it scores texts, and knows no temperature), got temperature"
