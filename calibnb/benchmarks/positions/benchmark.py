"""Answer positions: its measures and its claims."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import pandas as pd

from calibnb.benchmarks.declaration import Benchmark, Measure
from calibnb.evidence.claims import Claim, Section, Table, as_stated
from calibnb.evidence.runs import Run

FEW = 10  # questions whose positions are read: below, a distance from uniform says nothing


def _read_positions(run: Run, model: str, variants: Sequence[str]) -> pd.DataFrame:
    """Shares and distances of one variant with their intervals, of which the measures already are the summary."""
    (variant,) = variants
    found = json.loads((run.folder("positions", model) / f"{variant}.json").read_text())
    parse = {"measure": "parse", "value": found["parse_rate"]}
    exact = {"measure": "exact_total_variation", "value": found["exact_total_variation"]}
    rows = [row | {end: found[f"{row['measure']}_{end}"] for end in ("low", "high")} for row in (parse, exact)]
    if found["exact_questions"] < FEW:
        rows[1] |= dict.fromkeys(("value", "low", "high"))
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


TABLE = Table("positions", _read_positions)

_position = partial(
    Claim,
    TABLE,
    as_stated,
    id="positions.{variant}.{measure}",
    source="results/positions/{slug}/{variant}.json#{measure}",
)
POSITIONS: Section = (
    _position(
        "parse",
        question="What is the share of multiple-choice questions that can be read of {variant}?",
        unit="share of texts",
    ),
    _position(
        "exact_total_variation",
        question="What is the distance of answer positions from uniform of {variant}?",
        unit="total variation, exact",
    ),
)

BENCHMARK = Benchmark(
    "positions",
    "Answer positions",
    TABLE,
    as_stated,
    (
        Measure("parse", "readable questions (share)", "higher", pictured=True),
        Measure("exact_total_variation", "total variation from uniform, exact", "lower", given="parse"),
    ),
    (POSITIONS,),
)
