"""Tables of measurements: gathered over the adapters of a variant, written once all of them are measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from calibnb.benchmarks import variants
from calibnb.benchmarks.variants import Variant
from calibnb.evidence import results
from calibnb.models.operations import Operations, tflop
from calibnb.models.places import place


class Tables:
    """The tables of a benchmark for one variant of a model, by their names."""

    def __init__(self, benchmark: str, model: str, variant: str) -> None:
        self.benchmark, self.model, self.variant = benchmark, model, variant
        self.parts: dict[str, list[pd.DataFrame]] = {}
        self.operations: set[Operations] = set()  # of each adapter

    def add(self, each: Variant, **tables: pd.DataFrame) -> None:
        """The tables of one adapter; ``model``, ``variant`` and ``seed`` come to their columns."""
        self.operations.add(each.body.operations)
        for name, table in tables.items():
            self.parts.setdefault(name, []).append(table.assign(**each.who))

    def __getitem__(self, name: str) -> pd.DataFrame:
        """A table, the rows of all adapters below each other."""
        return pd.concat(self.parts[name], ignore_index=True)

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by their names."""
        return {name: self[name] for name in self.parts}

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the tables below ``results``, and their summary `record` as json beside them.

        The record gets what the model has done until now, with all adapters, in 10^12 floating-point operations:
        ``tflop``. What was kept for a killed run to go on from is dropped.
        """
        folder = Path("results") / self.benchmark / place(self.model) / self.variant
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables().items():
            table.to_parquet(folder / f"{name}.parquet", index=False)
        taken = sum(operations.count for operations in self.operations)
        results.write_json({**record, "tflop": tflop(taken)}, folder.with_name(f"{self.variant}.json"))
        variants.done(self.model, self.variant, self.benchmark)
