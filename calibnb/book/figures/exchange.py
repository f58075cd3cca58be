"""What calibration gains against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from calibnb.book.style import finished, look, panel_grid, plain_log, shared_legend, whisker_lengths


def tradeoff(
    frame: pd.DataFrame, *, variants: Sequence[str], x: str, xlabel: str, panels: Mapping[str, str], ylabel: str
) -> Figure:
    """What is gained against what it costs: a cross a variant, a panel a measure that is better the lower it is.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, measure, value, low, high``; `x` is a measure that is better the higher it is.
    variants : Sequence[str]
        In the order of the legend.
    x : str
        Measure of the horizontal axis.
    xlabel, ylabel : str
        Names and units of the axes.
    panels : Mapping[str, str]
        Measures and what stands above each. A grey line joins the variants that no other beats at both.
    """
    figure, axes = panel_grid(len(panels), 3, 4.0, 3.8, sharex=True)
    for axis, (measure, title) in zip(axes, panels.items(), strict=True):
        points = []
        for variant in variants:
            here = frame[frame["variant"] == variant].set_index("measure")
            across, up = (here.loc[m, ["value", "low", "high"]].to_numpy(float) for m in (x, measure))
            style = look(variant, variants)
            axis.errorbar(
                across[:1], up[:1],
                xerr=whisker_lengths(across[:1], across[1:2], across[2:]),
                yerr=whisker_lengths(up[:1], up[1:2], up[2:]),
                fmt=style.marker, color=style.colour, markersize=8, elinewidth=1.2, capsize=3, label=variant,
            )  # fmt: skip
            points.append((across[0], up[0]))
        front = [p for p in points if not any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in points)]
        axis.plot(*zip(*sorted(front), strict=True), color="#BDBDBD", linewidth=1.2, zorder=0)
        axis.set_yscale("log")
        plain_log(axis.yaxis)
        axis.set_title(title)
        axis.set_xlabel(xlabel)
    axes[0].set_ylabel(ylabel)
    shared_legend(figure, *axes[0].get_legend_handles_labels())
    return finished(figure)


def over(
    frame: pd.DataFrame, *, variants: Sequence[str], x: str, xlabel: str, panels: Mapping[str, str], level: str
) -> Figure:
    """Measures of variants over a setting in which they differ, a panel a measure, and one variant as a level.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, measure, value, low, high`` and the column ``x``; the level's own ``x`` is not read.
    variants : Sequence[str]
        From small to large ``x`` joined by a line; those that share an ``x`` with an earlier one are not.
    x : str
        Column of the horizontal axis.
    xlabel : str
        Its name and unit.
    panels : Mapping[str, str]
        Measures, and what stands above each.
    level : str
        The variant drawn as a dotted line with its interval as a band.
    """
    figure, axes = panel_grid(len(panels), 3, 3.6, 3.1)
    for axis, (measure, title) in zip(axes, panels.items(), strict=True):
        here = frame[frame["measure"] == measure].set_index("variant")
        if level in here.index:  # a ratio to the level has none
            ((value, low, high),) = here.loc[[level], ["value", "low", "high"]].to_numpy(float).tolist()
            axis.axhspan(low, high, color=look(level).colour, alpha=0.2, linewidth=0)
            axis.axhline(value, color=look(level).colour, linestyle=":", label=level)
        points = here.loc[list(variants)].sort_values(x, kind="stable")
        line = points[~points[x].duplicated()]
        axis.plot(line[x], line["value"], color="#BDBDBD", linewidth=1.2, zorder=0)
        for variant in variants:
            value, low, high = (points.loc[[variant], c].to_numpy(float) for c in ("value", "low", "high"))
            style, at = look(variant, variants), points.loc[[variant], x].to_numpy(float)
            axis.errorbar(
                at, value, yerr=whisker_lengths(value, low, high),
                fmt=style.marker, color=style.colour, markersize=8, elinewidth=1.2, capsize=3, label=variant,
            )  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel(xlabel)
    shared_legend(figure, *axes[0].get_legend_handles_labels())
    return finished(figure)
