"""The book's figures: one style, one colour a variant, functions from tidy frames to a `Figure`.

Nothing here computes a result. A function takes what is to be seen, checks nothing but its shape, and returns
a figure with labelled axes and units; caption and alt text belong to the notebook cell that shows it.
Backgrounds are white and opaque, so that a figure stays readable on a dark page, and a variant is told apart
by shape and line style as well as by colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.core.getipython import get_ipython
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullLocator

from calibnb.laws.distances import Floats

Frame = pd.DataFrame

# Okabe and Ito's palette: told apart under the common kinds of colour blindness.
_COLOURS = {
    "target": "#222222",
    "base": "#8C8C8C",
    "temperature": "#009E73",
    "format": "#CC79A7",
    "soft": "#0072B2",
    "hard": "#D55E00",
    "ssot": "#7A5230",
    "verbalised": "#5B5B00",
    "ssot-system": "#B07A48",
    "verbalised-system": "#9A9A2E",
}
SPARE = ("#E69F00", "#56B4E9", "#B8A800", "#882255", "#332288")
_MARKERS = {
    "target": "|",
    "base": "s",
    "temperature": "v",
    "format": "D",
    "soft": "o",
    "hard": "^",
    "ssot": "h",
    "verbalised": "8",
    "ssot-system": "H",
    "verbalised-system": "p",
}
_LINES: dict[str, Literal["-", "--", "-.", ":"]] = {
    "target": "-",
    "base": ":",
    "temperature": "-",
    "format": "-.",
    "soft": "-",
    "hard": "--",
    "ssot": ":",
    "verbalised": "-.",
    "ssot-system": ":",
    "verbalised-system": "-.",
}
SPLITS = {
    "train": "train",
    "validation": "in range",
    "unseen": "unseen parameters",
    "held_out": "held-out families",
}
SPLIT_COLOURS = {"train": "#BDBDBD", "validation": "#0072B2", "unseen": "#D55E00", "held_out": "#009E73"}
NW1 = "normalised W1 (0 perfect, 1 always the median)"


def use_style() -> None:
    """Set the style of every later figure; in a notebook, also pictures at twice the screen's resolution."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.transparent": False,
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.labelsize": 11,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.8,
            "lines.linewidth": 1.8,
            "svg.hashsalt": "calibnb",
            "svg.fonttype": "path",
        },
    )
    shell = get_ipython()
    if shell is not None:
        shell.run_line_magic("config", 'InlineBackend.figure_formats = ["retina"]')


@dataclass(frozen=True)
class Look:
    """How a variant is drawn everywhere in the book."""

    colour: str
    marker: str
    line: Literal["-", "--", "-.", ":"]


def look(variant: str, variants: Sequence[str] = ()) -> Look:
    """Colour, marker and line style of a variant.

    Methods that are added by name get the spare colours in the order in which they stand in ``variants``.
    """
    if variant in _COLOURS:
        return Look(_COLOURS[variant], _MARKERS[variant], _LINES[variant])
    others = [name for name in variants if name not in _COLOURS]
    place = (others.index(variant) if variant in others else 0) % len(SPARE)
    return Look(SPARE[place], "P*Xp<"[place], "-")


def in_order(variants: Sequence[str]) -> list[str]:
    """Variants as pictures have them whichever runs they come from: the known ones first, others as they come."""
    known = list(_COLOURS)
    return sorted(dict.fromkeys(variants), key=lambda name: known.index(name) if name in known else len(known))


# Parts of a larger figure that are drawn instead of figures of their own, the innermost last: see `each`.
_PARTS: list[SubFigure] = []


def panel_grid(count: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes of ``width`` x ``height`` inches, at most ``columns`` in a row."""
    columns = min(columns, count)
    rows = ceil(count / columns)
    if _PARTS:
        figure: Any = _PARTS[-1]
        axes = figure.subplots(rows, columns, squeeze=False, **shared)
    else:
        figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **shared)
    flat = list(axes.flat)
    for axis in flat[count:]:
        axis.set_visible(False)
    return figure, flat[:count]


def finished(figure: Figure) -> Figure:
    if not _PARTS:
        plt.close(figure)  # the notebook shows what a cell returns; pyplot would show it a second time
    return figure


def each(draw: Callable[[Frame], Figure], frame: Frame, by: str = "model") -> Figure:
    """The same picture for every value of a column, one above the other; where there is one, the picture alone.

    Where there is none, a line that says so stands in its place.

    Parameters
    ----------
    draw : Callable[[Frame], Figure]
        Makes a figure of a part of the frame with the functions of `book.figures`.
    frame : Frame
        Has the column `by`, whose values stand above the parts.
    by : str
        The column.
    """
    if frame.empty:
        return _nothing()
    values = list(frame[by].unique())
    parts = [frame[frame[by] == value] for value in values]
    if len(parts) == 1:
        return draw(parts[0])
    sizes = [draw(part).get_size_inches() for part in parts]
    heights = [height + 0.4 for _, height in sizes]
    whole = plt.figure(figsize=(max(width for width, _ in sizes), sum(heights)), layout="constrained")
    places: Any = whole.subfigures(len(parts), 1, height_ratios=heights)
    for place, part, value in zip(places, parts, values, strict=True):
        place.suptitle(str(value), x=0.01, ha="left", weight="bold")
        _PARTS.append(place.subfigures(1, 1))  # below the title, which would share its row with a legend otherwise
        try:
            draw(part)
        finally:
            _PARTS.pop()
    return finished(whole)


def _nothing() -> Figure:
    """What stands where a picture would, were there anything to show."""
    figure, (axis,) = panel_grid(1, 1, 7.0, 0.8)
    axis.text(0.5, 0.5, "No run that is present has anything to show here.", ha="center", va="center")
    axis.axis("off")
    return finished(figure)


def plain_log(side: XAxis | YAxis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times powers of ten, without exponents."""
    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter(lambda x, _: f"{x:g}")
    side.set_minor_locator(NullLocator())


def shared_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))


def whisker_lengths(value: Floats, low: Floats, high: Floats) -> Floats:
    """``[2, n]`` lengths of error bars; none where an interval does not exist."""
    return np.nan_to_num(np.stack([value - low, high - value]), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
