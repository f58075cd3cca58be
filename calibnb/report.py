"""What notebooks show as text and write as small results: tables, intervals, metrics for `dvc metrics show`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML

from calibnb.params import UNTRAINED

NBSP = "\N{NO-BREAK SPACE}"
RARE = 0.01  # a validity below it: what is read given a valid answer is shown, and no claim rests on it


def with_interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """A value with its interval as the book prints it: ``0.65 [0.52, 0.80]``, a line breaking before the bracket only.

    A dash stands for a value that does not exist, and a value without an interval alone.
    """
    if math.isnan(value):
        return "–"
    if math.isnan(low):
        return f"{round(value, digits) + 0.0:.{digits}f}"
    value, low, high = (round(x, digits) + 0.0 for x in (value, low, high))  # no -0.00
    return f"{value:.{digits}f} [{low:.{digits}f},{NBSP}{high:.{digits}f}]"


def _verbatim(text: object) -> str:
    return "<code>" + escape(str(text)).replace("\n", "<br>") + "</code>"


def table(frame: pd.DataFrame, digits: int = 3, *, verbatim: Sequence[str] = ()) -> HTML:
    """A frame as a plain table without its index: the same bytes at every run.

    verbatim: columns of what a model wrote, shown as it stands, line breaks included.
    """
    shown = frame.rename_axis(columns=None).rename(columns=lambda name: escape(str(name)))
    for name in shown.columns:
        if name in verbatim:
            shown[name] = shown[name].map(_verbatim)
        else:
            shown[name] = shown[name].map(lambda x: escape(x) if isinstance(x, str) else x)
    with pd.option_context("display.max_colwidth", None):
        html = shown.to_html(index=False, float_format=lambda x: f"{x:.{digits}f}", na_rep="", border=0, escape=False)
    return HTML(html)  # type: ignore[no-untyped-call]


def measurements(folder: Path, names: Iterable[str], seeds: Sequence[int]) -> pd.DataFrame:
    """The tables ``folder/<name>.parquet`` below each other, with columns ``variant`` and ``seed``.

    seeds: of the study; adapters of others, which an earlier study may have left there, are left out.
    """
    frame = pd.concat([pd.read_parquet(folder / f"{name}.parquet") for name in names], ignore_index=True)
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
