"""Block of params.yaml on the exact search: see `number_search`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from calibnb.blocks import Block, Count


class OpenParams(Block):
    """The search for the exact law of a model's answers: see `answers`."""

    tolerance: Annotated[float, Field(gt=0, lt=1)]
    max_nodes: Count
    nodes_per_pass: Count

    def problems(self) -> Iterator[str]:
        """What is wrong between keys, as ``key: must be ..., got ...``."""
        if self.nodes_per_pass > self.max_nodes:
            yield f"nodes_per_pass: must be <= max_nodes = {self.max_nodes}, got {self.nodes_per_pass}"
