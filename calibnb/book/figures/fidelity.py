"""How close answers to settings of the study come: split by split, in which part, computed and sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from calibnb.book.style import NW1, SPLITS, finished, look, panel_grid, plain_log, shared_legend, whisker_lengths

FAR = 5.0  # times what always answering the median costs


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
