"""The book's figures: one style, one colour a variant, functions from tidy frames to a `Figure`.

Nothing here computes a result. A function takes what is to be seen, checks nothing but its shape, and returns
a figure with labelled axes and units; caption and alt text belong to the notebook cell that shows it.
Backgrounds are white and opaque, so that a figure stays readable on a dark page, and a variant is told apart
by shape and line style as well as by colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from IPython.core.getipython import get_ipython
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from calibnb.metrics import Floats, Law, is_discrete

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
}
_SPARE = ("#E69F00", "#56B4E9", "#B8A800", "#882255", "#332288")
_MARKERS = {
    "target": "|",
    "base": "s",
    "temperature": "v",
    "format": "D",
    "soft": "o",
    "hard": "^",
    "ssot": "h",
    "verbalised": "8",
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
}

SPLITS = {
    "train": "train",
    "validation": "in range",
    "unseen": "unseen parameters",
    "held_out": "held-out families",
}
_SPLIT_COLOURS = {"train": "#BDBDBD", "validation": "#0072B2", "unseen": "#D55E00", "held_out": "#009E73"}

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
    place = (others.index(variant) if variant in others else 0) % len(_SPARE)
    return Look(_SPARE[place], "P*Xp<"[place], "-")


def _panels(
    count: int, columns: int, width: float, height: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes of ``width`` x ``height`` inches, at most ``columns`` in a row."""
    columns = min(columns, count)
    rows = ceil(count / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **shared
    )
    flat = list(axes.flat)
    for axis in flat[count:]:
        axis.set_visible(False)
    return figure, flat[:count]


def _finish(figure: Figure) -> Figure:
    plt.close(figure)  # the notebook shows what a cell returns; pyplot would show it a second time
    return figure


def _plain_log(side: XAxis | YAxis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times powers of ten, without exponents."""
    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter(lambda x, _: f"{x:g}")
    side.set_minor_locator(NullLocator())


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))


def _whiskers(value: Floats, low: Floats, high: Floats) -> Floats:
    """``[2, n]`` lengths of error bars; none where an interval does not exist."""
    return np.nan_to_num(np.stack([value - low, high - value]), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)


# ------------------------------------------------------------------------------------------------------------
# Measures


def headline(
    frame: pd.DataFrame, *, variants: Sequence[str], splits: Sequence[str], label: str = NW1
) -> Figure:
    """One panel a split, one point a variant with its interval: the answer in a picture.

    Args:
        frame: rows of ``split, variant, value, low, high, settled``; what is not settled is drawn hollow.
        variants: from top to bottom.
        splits: keys of `SPLITS`, from left to right.
        label: name and unit of the value.
    """
    figure, axes = _panels(len(splits), 3, 3.4, 0.55 * len(variants) + 1.4, sharey=True, sharex=True)
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
                xerr=_whiskers(np.array([value]), np.array([low]), np.array([high])),
                fmt=style.marker,
                color=style.colour,
                markerfacecolor=style.colour if here.loc[variant, "settled"] else "white",
                markersize=8,
                capsize=4,
            )
            axis.annotate(
                f"{value:.2f}", (value, y), xytext=(0, 9), textcoords="offset points", ha="center", size=9
            )
        axis.axvline(1, color="#222222", linewidth=1, linestyle=":")
        axis.set_yticks(range(len(variants)), variants)
        axis.set_ylim(len(variants) - 0.5, -0.7)
        axis.set_title(SPLITS[split])
        axis.set_xlim(left=0)
    figure.supxlabel(label, size=11)
    return _finish(figure)


def per_family_dots(
    frame: pd.DataFrame,
    *,
    variants: Sequence[str],
    label: str = NW1,
    log: bool = True,
    reference: float = 1.0,
    together: str | None = None,
) -> Figure:
    """One row a family, one dot a variant: where calibration holds and where it does not.

    Args:
        frame: rows of ``family, variant, value, low, high``; what does not exist is nan, and a value that is nan is
            not drawn. Families are sorted by the last variant, lowest on top.
        variants: in the order of the legend.
        label: name and unit of the value.
        log: logarithmic axis, for values that span decades.
        reference: where a dotted line stands.
        together: the row that sums up the others, which stands last, apart from them.
    """
    table = frame.pivot_table(index="family", columns="variant", values="value", sort=False, dropna=False)
    families = table.sort_values(variants[-1]).index.tolist() if len(table) else []
    families.sort(key=lambda family: family == together)
    row = {family: y for y, family in enumerate(families)}
    figure, (axis,) = _panels(1, 1, 8.0, 0.3 * len(families) + 1.6)
    spread = np.linspace(-0.24, 0.24, len(variants)) if len(variants) > 1 else np.zeros(len(variants))
    for offset, variant in zip(spread, variants, strict=True):
        here = frame[(frame["variant"] == variant) & frame["family"].isin(families)]
        style = look(variant, variants)
        value = here["value"].to_numpy(float)
        axis.errorbar(
            value,
            here["family"].map(row).to_numpy(float) + offset,
            xerr=_whiskers(value, here["low"].to_numpy(float), here["high"].to_numpy(float)),
            fmt=style.marker,
            color=style.colour,
            markersize=6,
            elinewidth=1.2,
            label=variant,
        )
    if log:
        axis.set_xscale("log")
        _plain_log(axis.xaxis)
    axis.axvline(reference, color="#222222", linewidth=1, linestyle=":")
    if together in families:
        axis.axhline(len(families) - 1.5, color="#222222", linewidth=1)
    axis.set_yticks(range(len(families)), [family.replace("_", " ") for family in families])
    axis.set_ylim(len(families) - 0.4, -0.6)
    axis.set_xlabel(label)
    _legend(figure, *axis.get_legend_handles_labels())
    return _finish(figure)


def measures(frame: pd.DataFrame, *, variants: Sequence[str], labels: Mapping[str, str], columns: int = 3) -> Figure:
    """One panel a measure, one point a variant with its interval.

    Args:
        frame: rows of ``measure, variant, value, low, high``; what does not exist is nan and is not drawn.
        variants: from top to bottom.
        labels: measures in the order of the panels, and what stands below each: name and unit.
    """
    figure, axes = _panels(len(labels), columns, 3.4, 0.5 * len(variants) + 1.4, sharey=True)
    for axis, (measure, label) in zip(axes, labels.items(), strict=True):
        here = frame[frame["measure"] == measure].set_index("variant")
        for y, variant in enumerate(variants):
            value, low, high = (here[[c]].reindex([variant])[c].to_numpy(float) for c in ("value", "low", "high"))
            style = look(variant, variants)
            whiskers = _whiskers(value, low, high)
            axis.errorbar(value, [y], xerr=whiskers, fmt=style.marker, color=style.colour, markersize=8, capsize=4)
        axis.set_yticks(range(len(variants)), variants)
        axis.set_ylim(len(variants) - 0.5, -0.5)
        axis.set_xlabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    return _finish(figure)


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

    Args:
        frame: rows of ``variant, value, low, high`` and the column ``x``.
        log: logarithmic vertical axis.
        diagonal: draws the line on which the measure equals ``x``.
    """
    figure, (axis,) = _panels(1, 1, 7.0, 4.2)
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
        _plain_log(axis.yaxis)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    _legend(figure, *axis.get_legend_handles_labels())
    return _finish(figure)


def tradeoff(
    frame: pd.DataFrame, *, variants: Sequence[str], x: str, xlabel: str, panels: Mapping[str, str], ylabel: str
) -> Figure:
    """What is gained against what it costs: a cross a variant, a panel a measure that is better the lower it is.

    Args:
        frame: rows of ``variant, measure, value, low, high``; `x` is a measure that is better the higher it is.
        panels: measures and what stands above each. A grey line joins the variants that no other beats at both.
    """
    figure, axes = _panels(len(panels), 3, 4.0, 3.8, sharex=True)
    for axis, (measure, title) in zip(axes, panels.items(), strict=True):
        points = []
        for variant in variants:
            here = frame[frame["variant"] == variant].set_index("measure")
            across, up = (here.loc[m, ["value", "low", "high"]].to_numpy(float) for m in (x, measure))
            style = look(variant, variants)
            axis.errorbar(
                across[:1], up[:1],
                xerr=_whiskers(across[:1], across[1:2], across[2:]), yerr=_whiskers(up[:1], up[1:2], up[2:]),
                fmt=style.marker, color=style.colour, markersize=8, elinewidth=1.2, capsize=3, label=variant,
            )  # fmt: skip
            points.append((across[0], up[0]))
        front = [p for p in points if not any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in points)]
        axis.plot(*zip(*sorted(front), strict=True), color="#BDBDBD", linewidth=1.2, zorder=0)
        axis.set_yscale("log")
        _plain_log(axis.yaxis)
        axis.set_title(title)
        axis.set_xlabel(xlabel)
    axes[0].set_ylabel(ylabel)
    _legend(figure, *axes[0].get_legend_handles_labels())
    return _finish(figure)


def over(
    frame: pd.DataFrame, *, variants: Sequence[str], x: str, xlabel: str, panels: Mapping[str, str], level: str
) -> Figure:
    """Measures of variants over a setting in which they differ, a panel a measure, and one variant as a level.

    Args:
        frame: rows of ``variant, measure, value, low, high`` and the column ``x``; the level's own ``x`` is not read.
        variants: from small to large ``x`` joined by a line; those that share an ``x`` with an earlier one are not.
        panels: measures, and what stands above each.
        level: the variant drawn as a dotted line with its interval as a band.
    """
    figure, axes = _panels(len(panels), 3, 3.6, 3.1)
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
                at, value, yerr=_whiskers(value, low, high),
                fmt=style.marker, color=style.colour, markersize=8, elinewidth=1.2, capsize=3, label=variant,
            )  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel(xlabel)
    _legend(figure, *axes[0].get_legend_handles_labels())
    return _finish(figure)


def letter_bars(frame: pd.DataFrame, *, variants: Sequence[str]) -> Figure:
    """One panel a variant: how often each letter was declared, and how probable it was where it was declared.

    Args:
        frame: rows of ``variant, letter, kind, value, low, high``; kind is ``counted`` (bars) or ``exact`` (points).
            What does not exist is nan and is not drawn.
    """
    columns = len(variants) if len(variants) < 6 else ceil(len(variants) / 2)
    figure, axes = _panels(len(variants), columns, 2.1, 3.0, sharey=True)
    for axis, variant in zip(axes, variants, strict=True):
        style = look(variant, variants)
        for kind, shift in (("counted", -0.15), ("exact", 0.25)):
            here = frame[(frame["variant"] == variant) & (frame["kind"] == kind)]
            value, low, high = (here[c].to_numpy(float) for c in ("value", "low", "high"))
            at = np.arange(len(here)) + shift
            if kind == "counted":
                axis.bar(at, value, 0.5, color=style.colour, alpha=0.35, edgecolor=style.colour)
            axis.errorbar(
                at,
                value,
                yerr=_whiskers(value, low, high),
                fmt="none" if kind == "counted" else "o",
                color=style.colour,
                ecolor="#222222",
                markersize=5,
                elinewidth=1,
                capsize=2,
            )
            axis.set_xticks(range(len(here)), here["letter"])
        axis.axhline(0.25, color="#222222", linewidth=1, linestyle=":")
        axis.set_title(variant)
        axis.set_ylim(0, 1)
    axes[0].set_ylabel("share of questions,\nprobability")
    return _finish(figure)


def strip(frame: pd.DataFrame, *, groups: Sequence[str], label: str, reference: float) -> Figure:
    """Values of groups as points on one axis, a row a group, and a dotted line.

    Args:
        frame: rows of ``group, value``.
    """
    figure, (axis,) = _panels(1, 1, 7.0, 0.7 * len(groups) + 1.2)
    rng = np.random.default_rng(0)  # points lie apart so that they can be told apart
    for y, group in enumerate(groups):
        value = frame.loc[frame["group"] == group, "value"].to_numpy(float)
        axis.plot(value, y + rng.uniform(-0.2, 0.2, len(value)), "o", color=_SPARE[y % len(_SPARE)], alpha=0.6)
    axis.axvline(reference, color="#222222", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(groups)), groups)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xlabel(label)
    return _finish(figure)


def kl_split(frame: pd.DataFrame, *, variants: Sequence[str], splits: Sequence[str]) -> Figure:
    """KL(target || model) as two stacked bars: the price of the format, then that of the shape.

    Args:
        frame: rows of ``split, variant, part, value, low, high`` with ``part`` in format, shape; nats.
    """
    figure, axes = _panels(len(splits), 3, 3.4, 0.5 * len(variants) + 1.6, sharey=True)
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
                bar = _whiskers(np.array([value]), np.array([low]), np.array([high]))
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
    _legend(figure, keys, ["format: not writing a canonical answer", "shape: given a canonical answer"])
    return _finish(figure)


def exact_vs_sampled(frame: pd.DataFrame, *, variants: Sequence[str], draws: int, label: str = NW1) -> Figure:
    """Sampled values against what the exact answer law implies for as many draws.

    Args:
        frame: rows of ``variant, exact, expected, low, high, sampled``: the exact value, then mean and 95 %
            band of the sampled value under the exact law, then what sampling gave.
        draws: answers drawn a setting.
    """
    figure, (axis,) = _panels(1, 1, 6.4, 5.6)
    for variant in variants:
        here = frame[frame["variant"] == variant]
        style = look(variant, variants)
        expected = here["expected"].to_numpy(float)
        bars = _whiskers(expected, here["low"].to_numpy(float), here["high"].to_numpy(float))
        axis.errorbar(
            here["exact"], expected, yerr=bars, fmt="none", ecolor=style.colour, alpha=0.45, elinewidth=4
        )
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
        _plain_log(side)
    axis.legend()
    return _finish(figure)


# ------------------------------------------------------------------------------------------------------------
# Laws


@dataclass(frozen=True)
class Overlay:
    """One setting to look at: its target and the answer laws of some variants.

    Attributes:
        title: the setting's label.
        law: frozen scipy law of the target.
        low, high: the range shown, usually the target's 0.001 and 0.999 quantiles.
        answers: variant -> (values ``[n]``, masses ``[n]``), read given a number.
    """

    title: str
    law: Law
    low: float
    high: float
    answers: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]


def _wrapped(title: str) -> str:
    """A setting's label on two lines: the family, then its parameters."""
    family, _, parameters = title.partition("(")
    return f"{family.replace('_', ' ')}\n{parameters.rstrip(')')}" if parameters else title


def _quartile_range(law: Law) -> float:
    return float(law.ppf(0.75) - law.ppf(0.25))


def _answer_cdf(
    values: npt.ArrayLike, masses: npt.ArrayLike, low: float, high: float
) -> tuple[Floats, Floats]:
    """Corners of the answer CDF between ``low`` and ``high``, drawn with steps to the right."""
    x, w = np.asarray(values, float), np.asarray(masses, float)
    order = np.argsort(x)
    x, cumulative = x[order], np.cumsum(w[order]) / w.sum()
    start = float(np.append(0.0, cumulative)[np.searchsorted(x, low, side="left")])
    inside = (x >= low) & (x <= high)
    stop = float(np.append(0.0, cumulative)[np.searchsorted(x, high, side="right")])
    return np.concatenate(([low], x[inside], [high])), np.concatenate(([start], cumulative[inside], [stop]))


def overlay_grid(settings: Sequence[Overlay], *, variants: Sequence[str], columns: int = 3) -> Figure:
    """Cumulative probability of target and answers, one panel a setting.

    The area between two curves is W1, and no choice of bins is needed, although models write few decimals in
    one place and many in another: so this is the honest overlay. Answers below or above the range shown
    count, they set where a curve starts and ends. A law with heavy tails gets a logarithmic axis.
    """
    figure, axes = _panels(len(settings), columns, 3.1, 2.7, sharey=True)
    for axis, setting in zip(axes, settings, strict=True):
        margin = 0.04 * (setting.high - setting.low)
        low, high = setting.low - margin, setting.high + margin
        if is_discrete(setting.law):
            x: Floats = np.arange(np.ceil(setting.low), np.floor(setting.high) + 1)
            x = np.concatenate(([low], x, [high]))
            cdf = np.concatenate(([0.0], setting.law.cdf(x[1:-1]), [setting.law.cdf(x[-2])]))
            axis.plot(x, cdf, drawstyle="steps-post", color=look("target").colour, linewidth=2.6, zorder=1)
        else:
            x = setting.law.ppf(np.linspace(0.001, 0.999, 500))
            x = np.sort(np.concatenate((np.linspace(low, high, 500), x)))
            axis.plot(x, setting.law.cdf(x), color=look("target").colour, linewidth=2.6, zorder=1)
        for variant in variants:
            if variant not in setting.answers or not np.sum(setting.answers[variant][1]) > 0:
                continue
            style = look(variant, variants)
            at, height = _answer_cdf(*setting.answers[variant], low, high)
            axis.plot(
                at, height, drawstyle="steps-post", color=style.colour, linestyle=style.line, linewidth=1.5
            )
        axis.set_title(_wrapped(setting.title), size=10)
        axis.set(xlim=(low, high), ylim=(-0.03, 1.03))
        axis.xaxis.set_major_locator(MaxNLocator(4))
        spread = _quartile_range(setting.law)
        if spread > 0 and high - low > 30 * spread:  # a heavy tail would leave nothing else to see
            axis.set_xscale("symlog", linthresh=spread)
            decades = 10.0 ** np.arange(ceil(np.log10(spread)), np.log10(max(-low, high)))[-2:]
            ticks = np.concatenate((-decades[::-1], [0.0], decades))
            axis.set_xticks(ticks[(ticks >= low) & (ticks <= high)])
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("(logarithmic)", size=9)
    figure.supylabel("cumulative probability", size=11)
    figure.supxlabel("answer", size=11)
    styles = [look(name, variants) for name in ("target", *variants)]
    handles = [Line2D([], [], color=s.colour, linestyle=s.line, linewidth=2) for s in styles]
    _legend(figure, handles, ["target", *variants])
    return _finish(figure)


def density_grid(
    settings: Sequence[Overlay], *, variants: Sequence[str], columns: int = 3, bins: int = 24
) -> Figure:
    """Probability in equal bins (integers where the law is discrete), one panel a setting.

    Easier on the eye than cumulative curves, but the picture depends on the bins. The two outer bins hold all
    that lies beyond the range shown.
    """
    figure, axes = _panels(len(settings), columns, 3.1, 2.7)
    for axis, setting in zip(axes, settings, strict=True):
        low, high = setting.low, setting.high
        if is_discrete(setting.law):
            step = ceil((high - low + 1) / (2 * bins))
            edges: Floats = np.arange(np.ceil(low) - 0.5, np.floor(high) + step, step)
        else:
            median, spread = setting.law.median(), _quartile_range(setting.law)
            edges = np.linspace(max(low, median - 6 * spread), min(high, median + 6 * spread), bins + 1)
        inner = edges[1:-1]
        target = np.diff(np.concatenate(([0.0], setting.law.cdf(inner), [1.0])))
        colour = look("target").colour
        axis.stairs(target, edges, fill=True, color=colour, alpha=0.16)
        axis.stairs(target, edges, color=colour, linewidth=1.6)
        for variant in variants:
            if variant not in setting.answers or not np.sum(setting.answers[variant][1]) > 0:
                continue
            values, masses = (np.asarray(a, float) for a in setting.answers[variant])
            height = np.bincount(np.searchsorted(inner, values, side="left"), masses, minlength=len(target))
            style = look(variant, variants)
            axis.stairs(height / masses.sum(), edges, color=style.colour, linestyle=style.line, linewidth=1.4)
        axis.set_title(_wrapped(setting.title), size=10)
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=is_discrete(setting.law)))
    figure.supylabel("probability of a bin", size=11)
    figure.supxlabel("answer", size=11)
    styles = [look(name, variants) for name in ("target", *variants)]
    handles = [Line2D([], [], color=s.colour, linestyle=s.line, linewidth=2) for s in styles]
    _legend(figure, handles, ["target", *variants])
    return _finish(figure)


def grid_scatter(frame: pd.DataFrame, *, columns: int = 5) -> Figure:
    """Where the settings of every family lie: its first two parameters, coloured by split, stars for selected
    ones.

    Args:
        frame: rows of ``family, split, selected, x_name, x, y_name, y``; a family with one parameter has
            ``y_name`` "" and any constant ``y``.
    """
    families = list(dict.fromkeys(frame["family"]))
    figure, axes = _panels(len(families), columns, 2.2, 1.95)
    for axis, family in zip(axes, families, strict=True):
        here = frame[frame["family"] == family]
        for split, colour in _SPLIT_COLOURS.items():
            of_split = here[here["split"] == split]
            plain, chosen = of_split[~of_split["selected"]], of_split[of_split["selected"]]
            axis.scatter(plain["x"], plain["y"], s=7, color=colour, linewidths=0)
            axis.scatter(
                chosen["x"], chosen["y"], s=70, marker="*", color=colour, edgecolors="#222222", linewidths=0.7
            )
        axis.set_title(family.replace("_", " "), size=10)
        axis.set_xlabel(str(here["x_name"].iloc[0]), size=9, labelpad=1)
        axis.set_ylabel(str(here["y_name"].iloc[0]), size=9, labelpad=1)
        axis.tick_params(labelsize=8)
        axis.margins(0.12)
        if not here["y_name"].iloc[0]:
            axis.set_yticks([])
    present = [split for split in _SPLIT_COLOURS if (frame["split"] == split).any()]
    handles = [Line2D([], [], marker="o", linestyle="", color=_SPLIT_COLOURS[split]) for split in present]
    star = Line2D([], [], marker="*", linestyle="", color="white", markeredgecolor="#222222", markersize=10)
    _legend(figure, [*handles, star], [*(SPLITS[split] for split in present), "selected"])
    return _finish(figure)


# ------------------------------------------------------------------------------------------------------------
# Training


def loss_curves(log: pd.DataFrame, *, methods: Sequence[str], window: int = 10) -> Figure:
    """Training loss (each method's own) and validation KL (the same for all) against the prompts seen.

    Args:
        log: rows of ``method, seed, prompts, loss, validation``; validation is nan where it did not run.
            Nats.
        window: steps of the running mean that is drawn over the raw training loss.
    """
    figure, (left, right) = _panels(2, 2, 4.6, 3.8)
    for method in methods:
        style = look(method, methods)
        for place, (_, run) in enumerate(log[log["method"] == method].groupby("seed")):
            label = method if place == 0 else None
            smooth = run["loss"].rolling(window, min_periods=1, center=True).mean()
            left.plot(run["prompts"], run["loss"], color=style.colour, alpha=0.2, linewidth=0.8)
            left.plot(run["prompts"], smooth, color=style.colour, linestyle=style.line, label=label)
            checked = run.dropna(subset=["validation"])
            right.plot(
                checked["prompts"],
                checked["validation"],
                marker=style.marker,
                color=style.colour,
                linestyle=style.line,
                label=label,
            )
    left.set(xlabel="prompts seen", ylabel="training loss, nats per answer", title="what is minimised")
    right.set(
        xlabel="prompts seen", ylabel="KL(target || model), nats per answer", title="on validation settings"
    )
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    _legend(figure, *right.get_legend_handles_labels())
    return _finish(figure)


def learning_curves(
    frame: pd.DataFrame,
    *,
    variants: Sequence[str],
    splits: Sequence[str],
    label: str = NW1,
    x: str = "prompts",
) -> Figure:
    """A measure at checkpoints of one long run a method, one panel a split, with its interval as a band.

    Args:
        frame: rows of ``variant, split, value, low, high`` and the column ``x``.
    """
    figure, axes = _panels(len(splits), 3, 3.4, 3.3, sharey=True)
    for axis, split in zip(axes, splits, strict=True):
        for variant in variants:
            here = frame[(frame["split"] == split) & (frame["variant"] == variant)].sort_values(x)
            if here.empty:
                continue
            style = look(variant, variants)
            axis.fill_between(here[x], here["low"], here["high"], color=style.colour, alpha=0.15, linewidth=0)
            axis.plot(
                here[x],
                here["value"],
                marker=style.marker,
                color=style.colour,
                linestyle=style.line,
                label=variant,
            )
        axis.set_title(SPLITS[split])
        axis.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].set_ylim(bottom=0)  # the panels share it, so it comes after all curves
    axes[0].set_ylabel(label.replace(" (", "\n("))
    figure.supxlabel(f"{x} seen", size=11)
    handles, labels = axes[0].get_legend_handles_labels()
    _legend(figure, handles, labels)
    return _finish(figure)


def packed_rows(kinds: npt.ArrayLike, names: Sequence[str]) -> Figure:
    """What one optimiser step reads: one row a packed sequence, one cell a token.

    Args:
        kinds: ``[rows, length]`` index into ``names`` of each token.
        names: such as ``["padding", "prompt", "answer"]``; the first is drawn pale.
    """
    cells = np.asarray(kinds, int)
    colours = ["#F0F0F0", "#56B4E9", "#D55E00", "#009E73", "#CC79A7"][: len(names)]
    figure, (axis,) = _panels(1, 1, 9.0, max(1.8, 0.16 * len(cells) + 1.3))
    axis.imshow(
        cells,
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(names) - 0.5,
    )
    axis.grid(False)
    axis.set(xlabel="token", ylabel="row")
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.set_yticks(range(0, len(cells), ceil(len(cells) / 8)))
    _legend(figure, [Patch(facecolor=c, edgecolor="#888888") for c in colours], list(names))
    return _finish(figure)


# ------------------------------------------------------------------------------------------------------------
# Method


def trie_drawing(
    parent: npt.ArrayLike,
    depth: npt.ArrayLike,
    mass: npt.ArrayLike,
    labels: Sequence[str],
    shares: npt.ArrayLike | None = None,
) -> Figure:
    """A trie from left to right: tokens on the nodes, edges as thick as the mass that passes them.

    Args:
        parent, depth, mass: ``[n]`` arrays of a `calibnb.trie.Trie`, in depth-first order.
        labels: ``[n]`` token texts.
        shares: ``[n]`` probability of each node given its parent, written on its edge.
    """
    up, level, weight = np.asarray(parent, int), np.asarray(depth, int), np.asarray(mass, float)
    n = len(up)
    children: list[list[int]] = [[] for _ in range(n)]
    for node in range(1, n):
        children[up[node]].append(node)
    y, leaves = np.zeros(n), 0
    # Depth-first order: a node's children come after it, so heights are known when nodes are met backwards.
    for node in range(n - 1, -1, -1):
        if children[node]:
            y[node] = float(np.mean(y[children[node]]))
        else:
            y[node], leaves = leaves, leaves + 1
    figure, (axis,) = _panels(1, 1, 1.75 * (level.max() + 1), max(2.4, 0.34 * leaves))
    for node in range(1, n):
        begin, end = (level[up[node]], y[up[node]]), (level[node], y[node])
        elbow = begin[0] + 0.35
        axis.plot(
            [begin[0], elbow, end[0]],
            [begin[1], end[1], end[1]],
            color="#9A9A9A",
            linewidth=0.6 + 5 * weight[node],
            solid_capstyle="round",
            zorder=1,
        )
        if shares is not None:
            text = f"{np.asarray(shares)[node]:.3f}"
            axis.text(
                level[node] - 0.4, y[node] + 0.1, text, size=8, ha="center", va="bottom", color="#333333"
            )
    for node in range(n):
        axis.text(
            level[node],
            y[node],
            labels[node],
            ha="center",
            va="center",
            size=10,
            family="DejaVu Sans Mono",
            bbox={
                "boxstyle": "round,pad=0.28",
                "facecolor": "#E8F1F8" if children[node] else "#FBEDE3",
                "edgecolor": "#555555",
                "linewidth": 0.8,
            },
            zorder=2,
        )
    axis.set(xlim=(-0.5, level.max() + 0.5), ylim=(-0.8, max(leaves - 0.2, 0.8)))
    axis.axis("off")
    return _finish(figure)


def mask_picture(mask: npt.ArrayLike, labels: Sequence[str]) -> Figure:
    """Who attends to whom: a row a token, filled where it reads the column's token.

    Args:
        mask: ``[n, n]`` true where the row attends to the column.
        labels: ``[n]`` token texts.
    """
    cells = np.asarray(mask, bool)
    figure, (axis,) = _panels(1, 1, 0.3 * len(cells) + 1.5, 0.3 * len(cells) + 1.3)
    axis.imshow(cells, cmap=ListedColormap(["#F3F3F3", "#0072B2"]), interpolation="nearest", vmin=0, vmax=1)
    axis.set_xticks(range(len(cells)), labels, size=9, family="DejaVu Sans Mono", rotation=90)
    axis.set_yticks(range(len(cells)), labels, size=9, family="DejaVu Sans Mono")
    axis.set_xticks(np.arange(-0.5, len(cells)), minor=True)
    axis.set_yticks(np.arange(-0.5, len(cells)), minor=True)
    axis.grid(False, which="major")
    axis.grid(True, which="minor", color="white", linewidth=1)
    axis.tick_params(which="both", length=0)
    axis.set(xlabel="is read", ylabel="reads")
    return _finish(figure)


def certificate_curve(frame: pd.DataFrame, *, variants: Sequence[str], tolerance: float) -> Figure:
    """How the unresolved probability of the search for all numbers falls with the prefixes expanded.

    Args:
        frame: rows of ``variant, nodes, certificate``.
        tolerance: where the search stops.
    """
    figure, (axis,) = _panels(1, 1, 6.4, 3.8)
    for variant in variants:
        here = frame[frame["variant"] == variant].sort_values("nodes")
        style = look(variant, variants)
        axis.plot(
            here["nodes"],
            here["certificate"],
            marker=style.marker,
            color=style.colour,
            linestyle=style.line,
            label=variant,
        )
    axis.axhline(tolerance, color="#222222", linewidth=1, linestyle=":", label=f"tolerance {tolerance:g}")
    axis.set(xscale="log", yscale="log", xlabel="prefixes expanded", ylabel="unresolved probability")
    for side in (axis.xaxis, axis.yaxis):
        _plain_log(side)
    axis.legend()
    return _finish(figure)


# ------------------------------------------------------------------------------------------------------------
# Words and tables
