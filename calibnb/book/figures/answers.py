"""What answers are like: how many differ, at which letter they stand, how far apart pairs of them are."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calibnb.book.style import SPARE, finished, look, panel_grid, plain_log, shared_legend, whisker_lengths


def curves(
    frame: pd.DataFrame,
    *,
    variants: Sequence[str],
    x: str,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    diagonal: bool = False,
) -> Figure:
    """A measure as a curve for each variant, with its interval as a band.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, value, low, high`` and the column ``x``.
    variants : Sequence[str]
        In the order of the legend.
    x : str
        Column of the horizontal axis.
    xlabel, ylabel : str
        Names and units of the axes.
    log : bool
        Logarithmic vertical axis.
    diagonal : bool
        Draws the line on which the measure equals ``x``.
    """
    figure, (axis,) = panel_grid(1, 1, 7.0, 4.2)
    for variant in variants:
        here = frame[frame["variant"] == variant].sort_values(x)
        style = look(variant, variants)
        axis.fill_between(here[x], here["low"], here["high"], color=style.colour, alpha=0.15, linewidth=0)
        axis.plot(here[x], here["value"], color=style.colour, linestyle=style.line, label=variant)
    if diagonal:
        ends = [frame[x].min(), frame[x].max()]
        axis.plot(ends, ends, color="#222222", linewidth=1, linestyle=":")
    if log:
        axis.set_yscale("log")
        plain_log(axis.yaxis)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    shared_legend(figure, *axis.get_legend_handles_labels())
    return finished(figure)


def letter_bars(
    frame: pd.DataFrame, *, variants: Sequence[str], label: str = "share of questions,\nprobability"
) -> Figure:
    """One panel a variant: how often each letter was declared, and how probable it was; a dotted line is uniform.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, letter, kind, value, low, high``; kind is ``counted`` (bars) or ``exact`` (points), one of
        them or both. What does not exist is nan and is not drawn.
    variants : Sequence[str]
        In the order of the panels.
    label : str
        Name and unit of the value.
    """
    shifts = {"counted": -0.15, "exact": 0.25} if frame["kind"].nunique() > 1 else dict.fromkeys(frame["kind"], 0.0)
    columns = len(variants) if len(variants) < 6 else ceil(len(variants) / 2)
    figure, axes = panel_grid(len(variants), columns, 2.1, 3.0, sharey=True)
    for axis, variant in zip(axes, variants, strict=True):
        style = look(variant, variants)
        for kind, shift in shifts.items():
            here = frame[(frame["variant"] == variant) & (frame["kind"] == kind)]
            value, low, high = (here[c].to_numpy(float) for c in ("value", "low", "high"))
            at = np.arange(len(here)) + shift
            if kind == "counted":
                axis.bar(at, value, 0.5, color=style.colour, alpha=0.35, edgecolor=style.colour)
            axis.errorbar(
                at,
                value,
                yerr=whisker_lengths(value, low, high),
                fmt="none" if kind == "counted" else style.marker,
                color=style.colour,
                ecolor="#222222",
                markersize=5,
                elinewidth=1,
                capsize=2,
            )
            axis.set_xticks(range(len(here)), here["letter"])
        axis.axhline(0.25, color="#222222", linewidth=1, linestyle=":")
        axis.set_title(variant)
        axis.set_xlim(-0.6, len(here) - 0.4)
        axis.set_ylim(0, 1)
    axes[0].set_ylabel(label)
    return finished(figure)


def strip(frame: pd.DataFrame, *, groups: Sequence[str], label: str, reference: float) -> Figure:
    """Values of groups as points on one axis, a row a group, and a dotted line.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``group, value``.
    groups : Sequence[str]
        From top to bottom.
    label : str
        Name and unit of the value.
    reference : float
        Where the dotted line stands.
    """
    figure, (axis,) = panel_grid(1, 1, 7.0, 0.7 * len(groups) + 1.2)
    rng = np.random.default_rng(0)  # points lie apart so that they can be told apart
    for y, group in enumerate(groups):
        value = frame.loc[frame["group"] == group, "value"].to_numpy(float)
        axis.plot(value, y + rng.uniform(-0.2, 0.2, len(value)), "o", color=SPARE[y % len(SPARE)], alpha=0.6)
    axis.axvline(reference, color="#222222", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(groups)), groups)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xlabel(label)
    return finished(figure)
