"""Tables and values with intervals, as the book prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import pandas as pd
from IPython.display import HTML

from calibnb.evidence.results import NBSP


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

    Parameters
    ----------
    frame : DataFrame
        What is shown.
    digits : int
        Decimal places of numbers.
    verbatim : Sequence[str]
        Columns of what a model wrote, shown as it stands, line breaks included.
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
