"""Results on disk: tables of measurements read, small records written; equal results are equal bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from calibnb.training.params import UNTRAINED

NBSP = "\N{NO-BREAK SPACE}"
RARE = 0.01  # a validity below it: what is read given a valid answer is shown, and no claim rests on it


def measurements(folder: Path, variants: Iterable[str], table: str, seeds: Sequence[int]) -> pd.DataFrame:
    """A table of some variants, ``folder/<variant>/<table>.parquet`` below each other.

    Parameters
    ----------
    folder : Path
        A benchmark's results of a model.
    variants : Iterable[str]
        Those whose rows are wanted.
    table : str
        The name of the table.
    seeds : Sequence[int]
        Seeds of the study; adapters of others, which an earlier study may have left there, are left out.

    Returns
    -------
    DataFrame
        Rows with the columns ``model, variant, seed`` and the table's own.
    """
    parts = [pd.read_parquet(folder / variant / f"{table}.parquet") for variant in variants]
    frame = pd.concat(parts, ignore_index=True)
    return frame[frame["seed"].isin(seeds) | frame["variant"].isin(UNTRAINED)].reset_index(drop=True)


def finite(value: float) -> float | None:
    """A number for json, which has no nan: None stands for what does not exist."""
    return float(value) if math.isfinite(value) else None


def interval(row: Any) -> dict[str, float | None]:
    """``value``, ``low`` and ``high`` of a row or an estimate, for json."""
    return {"value": finite(row.value), "low": finite(row.low), "high": finite(row.high)}


def write_json(content: Mapping[str, Any] | Iterable[Any], path: Path) -> None:
    """Write a small result; equal results are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
