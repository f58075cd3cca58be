"""Values with intervals: variants side by side, over families, tasks and suites, against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from calibnb.book.style import NW1, SPARE, SPLITS, finished, look, panel_grid, plain_log, shared_legend, whisker_lengths

FAR = 5.0  # times what always answering the median costs
_PERFECT: dict[str, Any] = {
    "color": look("target").colour, "marker": look("target").marker, "linestyle": "none",
    "markersize": 22, "markeredgewidth": 2,
}  # fmt: skip


def headline(frame: pd.DataFrame, *, variants: Sequence[str], splits: Sequence[str], label: str = NW1) -> Figure:
    """One panel a split, one point a variant with its interval: the answer in a picture.

    Where an interval goes beyond `FAR` the axis is logarithmic, lest one variant press all others to the edge.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``split, variant, value, low, high, settled``; what is not settled is drawn hollow.
    variants : Sequence[str]
        From top to bottom.
    splits : Sequence[str]
        Keys of `SPLITS`, from left to right.
    label : str
        Name and unit of the value.
    """
    figure, axes = panel_grid(len(splits), 3, 3.4, 0.55 * len(variants) + 1.4, sharey=True, sharex=True)
    for axis, split in zip(axes, splits, strict=True):
        here = frame[frame["split"] == split].set_index("variant")
        for y, variant in enumerate(variants):
            if variant not in here.index:
                continue
            value, low, high = here.loc[variant, ["value", "low", "high"]].to_numpy(float)
            style = look(variant, variants)
            axis.errorbar(
                [value],
                [y],
                xerr=whisker_lengths(np.array([value]), np.array([low]), np.array([high])),
                fmt=style.marker,
                color=style.colour,
                markerfacecolor=style.colour if here.loc[variant, "settled"] else "white",
                markersize=8,
                capsize=4,
            )
            axis.annotate(f"{value:.2f}", (value, y), xytext=(0, 9), textcoords="offset points", ha="center", size=9)
        axis.axvline(1, color="#222222", linewidth=1, linestyle=":")
        axis.set_yticks(range(len(variants)), variants)
        axis.set_ylim(len(variants) - 0.5, -0.7)
        axis.set_title(SPLITS[split])
        if np.nanmax(frame[["value", "high"]].to_numpy(float)) > FAR:
            axis.set_xscale("log")
            plain_log(axis.xaxis)
            axis.tick_params(axis="x", labelsize=9)
        else:
            axis.set_xlim(left=0)
    figure.supxlabel(label, size=11)
    return finished(figure)


def per_family_dots(
    frame: pd.DataFrame,
    *,
    variants: Sequence[str],
    label: str = NW1,
    log: bool = True,
    reference: float = 1.0,
    together: str | None = None,
    order: Sequence[str] = (),
) -> Figure:
    """One row a family, one dot a variant: where calibration holds and where it does not.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``family, variant, value, low, high``; what does not exist is nan, and a value that is nan is not drawn.
        Families are sorted by the last variant, lowest on top, where `order` says nothing.
    variants : Sequence[str]
        In the order of the legend.
    label : str
        Name and unit of the value.
    log : bool
        Logarithmic axis, for values that span decades.
    reference : float
        Where a dotted line stands.
    together : str or None
        The row that sums up the others, which stands last, apart from them.
    order : Sequence[str]
        Families from top to bottom, those of the frame among them.
    """
    variants = [variant for variant in variants if variant in set(frame["variant"])]  # a run may have fewer
    table = frame.pivot_table(index="family", columns="variant", values="value", sort=False, dropna=False)
    families = table.sort_values(variants[-1]).index.tolist() if len(table) else []
    families = [family for family in order if family in families] if order else families
    families.sort(key=lambda family: family == together)
    row = {family: y for y, family in enumerate(families)}
    # In inches: no marker covers that of another variant, and families lie farther apart than variants.
    apart = 0.09 * (len(variants) - 1)
    row_height = max(0.3, apart + 0.2)
    figure, (axis,) = panel_grid(1, 1, 8.0, row_height * len(families) + 1.6)
    half = apart / row_height / 2
    spread = np.linspace(-half, half, len(variants)) if len(variants) > 1 else np.zeros(len(variants))
    for offset, variant in zip(spread, variants, strict=True):
        here = frame[(frame["variant"] == variant) & frame["family"].isin(families)]
        style = look(variant, variants)
        value = here["value"].to_numpy(float)
        axis.errorbar(
            value,
            here["family"].map(row).to_numpy(float) + offset,
            xerr=whisker_lengths(value, here["low"].to_numpy(float), here["high"].to_numpy(float)),
            fmt=style.marker,
            color=style.colour,
            markersize=6,
            elinewidth=1.2,
            label=variant,
        )
    if log:
        axis.set_xscale("log")
        plain_log(axis.xaxis)
    axis.axvline(reference, color="#222222", linewidth=1, linestyle=":")
    if together in families:
        axis.axhline(len(families) - 1.5, color="#222222", linewidth=1)
    axis.set_yticks(range(len(families)), [family.replace("_", " ") for family in families])
    axis.set_ylim(len(families) - 0.4, -0.6)
    axis.set_xlabel(label)
    shared_legend(figure, *axis.get_legend_handles_labels())
    return finished(figure)


def measures(
    frame: pd.DataFrame,
    *,
    variants: Sequence[str],
    labels: Mapping[str, str],
    columns: int = 3,
    perfect: Mapping[str, str] | None = None,
) -> Figure:
    """One panel a measure, one point a variant with its interval.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``measure, variant, value, low, high``; what does not exist is nan and is not drawn.
    variants : Sequence[str]
        From top to bottom.
    labels : Mapping[str, str]
        Measures in the order of the panels, and what stands below each: name and unit.
    columns : int
        Columns of the grid of panels.
    perfect : Mapping[str, str] or None
        Measures, and the measures of the frame that say what a perfect sampler gets instead: a tick in each row.
    """
    figure, axes = panel_grid(len(labels), columns, 3.4, 0.5 * len(variants) + 1.4, sharey=True)
    for axis, (measure, label) in zip(axes, labels.items(), strict=True):
        here = frame[frame["measure"] == measure].set_index("variant")
        for y, variant in enumerate(variants):
            value, low, high = (here[[c]].reindex([variant])[c].to_numpy(float) for c in ("value", "low", "high"))
            style = look(variant, variants)
            whiskers = whisker_lengths(value, low, high)
            axis.errorbar(value, [y], xerr=whiskers, fmt=style.marker, color=style.colour, markersize=8, capsize=4)
        if perfect and measure in perfect:
            aim = frame[frame["measure"] == perfect[measure]].set_index("variant")["value"].reindex(list(variants))
            axis.plot(aim.to_numpy(float), np.arange(len(variants)), zorder=1, **_PERFECT)
        axis.set_yticks(range(len(variants)), variants)
        axis.set_ylim(len(variants) - 0.5, -0.5)
        axis.set_xlabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    if perfect:
        shared_legend(figure, [Line2D([], [], **(_PERFECT | {"markersize": 12}))], ["perfect sampler"])
    return finished(figure)


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


def kl_split(frame: pd.DataFrame, *, variants: Sequence[str], splits: Sequence[str]) -> Figure:
    """KL(target || model) as two stacked bars: the price of the format, then that of the shape.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``split, variant, part, value, low, high`` with ``part`` in format, shape; nats.
    variants : Sequence[str]
        From top to bottom.
    splits : Sequence[str]
        Keys of `SPLITS`, from left to right.
    """
    figure, axes = panel_grid(len(splits), 3, 3.4, 0.5 * len(variants) + 1.6, sharey=True)
    for axis, split in zip(axes, splits, strict=True):
        here = frame[frame["split"] == split].set_index(["variant", "part"])
        for y, variant in enumerate(variants):
            start = 0.0
            for part, hatch in (("format", "////"), ("shape", None)):
                if (variant, part) not in here.index:
                    continue
                value, low, high = here.loc[(variant, part), ["value", "low", "high"]].to_numpy(float)
                colour = look(variant, variants).colour
                axis.barh(
                    y,
                    value,
                    left=start,
                    height=0.6,
                    facecolor="white" if hatch else colour,
                    edgecolor=colour,
                    hatch=hatch,
                    linewidth=1.2,
                )
                bar = whisker_lengths(np.array([value]), np.array([low]), np.array([high]))
                drop = 0.12 if part == "format" else -0.12  # lest the two whiskers lie on one another
                axis.errorbar(
                    [start + value],
                    [y + drop],
                    xerr=bar,
                    fmt="none",
                    ecolor="#222222",
                    capsize=2,
                    elinewidth=1,
                )
                start += float(value)
        axis.set_yticks(range(len(variants)), variants)
        axis.set_ylim(len(variants) - 0.5, -0.5)
        axis.set_title(SPLITS[split])
        axis.set_xlim(left=0)
    figure.supxlabel("KL(target || model), nats per answer", size=11)
    keys = [Patch(facecolor="white", edgecolor="#555555", hatch="////"), Patch(facecolor="#777777")]
    shared_legend(figure, keys, ["format: not writing a canonical answer", "shape: given a canonical answer"])
    return finished(figure)


def exact_vs_sampled(frame: pd.DataFrame, *, variants: Sequence[str], draws: int, label: str = NW1) -> Figure:
    """Sampled values against what the exact answer law implies for as many draws.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, exact, expected, low, high, sampled``: the exact value, then mean and 95 % band of the
        sampled value under the exact law, then what sampling gave.
    variants : Sequence[str]
        In the order of the legend.
    draws : int
        Answers drawn a setting.
    label : str
        Name and unit of the value.
    """
    figure, (axis,) = panel_grid(1, 1, 6.4, 5.6)
    for variant in variants:
        here = frame[frame["variant"] == variant]
        style = look(variant, variants)
        expected = here["expected"].to_numpy(float)
        bars = whisker_lengths(expected, here["low"].to_numpy(float), here["high"].to_numpy(float))
        axis.errorbar(here["exact"], expected, yerr=bars, fmt="none", ecolor=style.colour, alpha=0.45, elinewidth=4)
        axis.plot(
            here["exact"],
            here["sampled"],
            style.marker,
            color=style.colour,
            label=variant,
            markeredgecolor="white",
        )
    both = np.concatenate([frame["exact"].to_numpy(float), frame["sampled"].to_numpy(float)])
    both = both[np.isfinite(both) & (both > 0)]
    ends = [0.8 * both.min(), 1.25 * both.max()] if len(both) else [0.1, 1.0]
    axis.plot(ends, ends, color="#222222", linewidth=1, linestyle=":", label="equal")
    axis.set(xscale="log", yscale="log", xlabel=f"exact {label}", ylabel=f"from {draws} draws")
    for side in (axis.xaxis, axis.yaxis):
        plain_log(side)
    axis.legend()
    return finished(figure)
