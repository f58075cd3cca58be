"""Laws and answers: cumulative curves, binned probabilities, grids of settings, what is said against what is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from calibnb.book.style import SPLIT_COLOURS, SPLITS, finished, look, panel_grid, shared_legend
from calibnb.laws.distances import Floats, Law, is_discrete

REFERENCES = ("base", "temperature", "format")  # what calibrated variants are seen beside
AREA = "#DEDEDE"  # below the target's curve


@dataclass(frozen=True)
class Overlay:
    """One setting to look at: its target and the answer laws of some variants.

    Attributes
    ----------
    title : str
        The setting's label.
    law : Law
        Frozen scipy law of the target.
    low, high : float
        The range shown, usually the target's 0.001 and 0.999 quantiles.
    answers : Mapping[str, tuple[array-like, array-like]]
        Variant -> (values ``[n]``, masses ``[n]``), read given a number.
    band : float
        Half the height of a band around the target, in which sampled curves of a perfect sampler stay; 0 for none.
    """

    title: str
    law: Law
    low: float
    high: float
    answers: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
    band: float = 0.0


def _wrapped(title: str) -> str:
    """A setting's label on two lines: the family, then its parameters."""
    family, _, parameters = title.partition("(")
    return f"{family.replace('_', ' ')}\n{parameters.rstrip(')')}" if parameters else title


def _quartile_range(law: Law) -> float:
    return float(law.ppf(0.75) - law.ppf(0.25))


def _answer_cdf(values: npt.ArrayLike, masses: npt.ArrayLike, low: float, high: float) -> tuple[Floats, Floats]:
    """Corners of the answer CDF between ``low`` and ``high``, drawn with steps to the right."""
    x, w = np.asarray(values, float), np.asarray(masses, float)
    order = np.argsort(x)
    x, cumulative = x[order], np.cumsum(w[order]) / w.sum()
    start = float(np.append(0.0, cumulative)[np.searchsorted(x, low, side="left")])
    inside = (x >= low) & (x <= high)
    stop = float(np.append(0.0, cumulative)[np.searchsorted(x, high, side="right")])
    return np.concatenate(([low], x[inside], [high])), np.concatenate(([start], cumulative[inside], [stop]))


def _strokes(variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How curves are drawn over one another: of those that are calibrated each later one narrower, so none hides."""
    calibrated = [variant for variant in variants if variant not in REFERENCES]
    widths = {variant: 1.3 + 1.5 * place for place, variant in enumerate(reversed(calibrated))}
    looks = {variant: look(variant, variants) for variant in variants}
    return {
        variant: {"color": how.colour, "linestyle": how.line, "linewidth": widths.get(variant, 1.3)}
        for variant, how in looks.items()
    }


def _legend(figure: Figure, strokes: Mapping[str, Mapping[str, Any]]) -> None:
    """The target as an area, variants as the curves are drawn."""
    target = Patch(facecolor=AREA, edgecolor=look("target").colour, linewidth=1)
    shared_legend(figure, [target, *(Line2D([], [], **how) for how in strokes.values())], ["target", *strokes])


def overlay_grid(settings: Sequence[Overlay], *, variants: Sequence[str], columns: int = 3) -> Figure:
    """Cumulative probability of target and answers, one panel a setting.

    The area between two curves is W1, and no choice of bins is needed, although models write few decimals in
    one place and many in another: so this is the honest overlay. Answers below or above the range shown
    count, they set where a curve starts and ends. A law with heavy tails gets a logarithmic axis.
    """
    figure, axes = panel_grid(len(settings), columns, 3.1, 2.7, sharey=True)
    strokes = _strokes(variants)
    for axis, setting in zip(axes, settings, strict=True):
        margin = 0.04 * (setting.high - setting.low)
        low, high = setting.low - margin, setting.high + margin
        if is_discrete(setting.law):
            x: Floats = np.arange(np.ceil(setting.low), np.floor(setting.high) + 1)
            x = np.concatenate(([low], x, [high]))
            cdf = np.concatenate(([0.0], setting.law.cdf(x[1:-1]), [setting.law.cdf(x[-2])]))
        else:
            x = setting.law.ppf(np.linspace(0.001, 0.999, 500))
            x = np.sort(np.concatenate((np.linspace(low, high, 500), x)))
            cdf = setting.law.cdf(x)
        steps: Literal["default", "steps-post"] = "steps-post" if is_discrete(setting.law) else "default"
        fill: Literal["post"] | None = "post" if is_discrete(setting.law) else None
        axis.fill_between(x, cdf, step=fill, color=AREA, linewidth=0, zorder=0)
        axis.plot(x, cdf, drawstyle=steps, color=look("target").colour, linewidth=1, zorder=1)
        if setting.band:
            ends = np.clip(cdf - setting.band, 0, 1), np.clip(cdf + setting.band, 0, 1)
            axis.fill_between(x, *ends, step=fill, color=look("target").colour, alpha=0.2, linewidth=0, zorder=0)
        for variant in variants:
            if variant not in setting.answers or not np.sum(setting.answers[variant][1]) > 0:
                continue
            at, height = _answer_cdf(*setting.answers[variant], low, high)
            axis.plot(at, height, drawstyle="steps-post", **strokes[variant])
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
    _legend(figure, strokes)
    return finished(figure)


def bin_edges(law: Law, low: float, high: float, bins: int = 24) -> Floats:
    """Edges of equal bins between two numbers, a heavy tail left out; of a discrete law, of equally many integers."""
    if is_discrete(law):
        step = ceil((high - low + 1) / (2 * bins))
        return np.arange(np.ceil(low) - 0.5, np.floor(high) + step, step)
    median, spread = law.median(), _quartile_range(law)
    return np.linspace(max(low, median - 6 * spread), min(high, median + 6 * spread), bins + 1)


def target_in_bins(law: Law, edges: Floats) -> Floats:
    """Probabilities of a law in the bins ``[len(edges) - 1]``, of which the outer two hold all that lies beyond."""
    return np.diff(np.concatenate(([0.0], law.cdf(edges[1:-1]), [1.0])))


def answers_in_bins(values: npt.ArrayLike, masses: npt.ArrayLike, edges: Floats) -> Floats:
    """Shares of answers' mass in the bins, as :func:`target_in_bins`."""
    weight = np.asarray(masses, float)
    place = np.searchsorted(edges[1:-1], np.asarray(values, float), side="left")
    shares: Floats = np.bincount(place, weight, minlength=len(edges) - 1) / weight.sum()
    return shares


def density_grid(settings: Sequence[Overlay], *, variants: Sequence[str], columns: int = 3, bins: int = 24) -> Figure:
    """Probability in equal bins (integers where the law is discrete), one panel a setting.

    Easier on the eye than cumulative curves, but the picture depends on the bins. The two outer bins hold all
    that lies beyond the range shown.
    """
    figure, axes = panel_grid(len(settings), columns, 3.1, 2.7)
    strokes = _strokes(variants)
    for axis, setting in zip(axes, settings, strict=True):
        edges = bin_edges(setting.law, setting.low, setting.high, bins)
        target = target_in_bins(setting.law, edges)
        axis.stairs(target, edges, fill=True, color=AREA)
        axis.stairs(target, edges, color=look("target").colour, linewidth=1)
        for variant in variants:
            if variant not in setting.answers or not np.sum(setting.answers[variant][1]) > 0:
                continue
            axis.stairs(answers_in_bins(*setting.answers[variant], edges), edges, **strokes[variant])
        axis.set_title(_wrapped(setting.title), size=10)
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=is_discrete(setting.law)))
    figure.supylabel("probability of a bin", size=11)
    figure.supxlabel("answer", size=11)
    _legend(figure, strokes)
    return finished(figure)


def grid_scatter(frame: pd.DataFrame, *, columns: int = 5) -> Figure:
    """Where the settings of every family lie: its first two parameters, coloured by split, stars for selected ones.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``family, split, selected, x_name, x, y_name, y``; a family with one parameter has ``y_name`` "" and any
        constant ``y``.
    columns : int
        Columns of the grid of panels.
    """
    families = list(dict.fromkeys(frame["family"]))
    figure, axes = panel_grid(len(families), columns, 2.2, 1.95)
    for axis, family in zip(axes, families, strict=True):
        here = frame[frame["family"] == family]
        for split, colour in SPLIT_COLOURS.items():
            of_split = here[here["split"] == split]
            plain, chosen = of_split[~of_split["selected"]], of_split[of_split["selected"]]
            axis.scatter(plain["x"], plain["y"], s=7, color=colour, linewidths=0)
            axis.scatter(chosen["x"], chosen["y"], s=70, marker="*", color=colour, edgecolors="#222222", linewidths=0.7)
        axis.set_title(family.replace("_", " "), size=10)
        axis.set_xlabel(str(here["x_name"].iloc[0]), size=9, labelpad=1)
        axis.set_ylabel(str(here["y_name"].iloc[0]), size=9, labelpad=1)
        axis.tick_params(labelsize=8)
        axis.margins(0.12)
        if not here["y_name"].iloc[0]:
            axis.set_yticks([])
    present = [split for split in SPLIT_COLOURS if (frame["split"] == split).any()]
    handles = [Line2D([], [], marker="o", linestyle="", color=SPLIT_COLOURS[split]) for split in present]
    star = Line2D([], [], marker="*", linestyle="", color="white", markeredgecolor="#222222", markersize=10)
    shared_legend(figure, [*handles, star], [*(SPLITS[split] for split in present), "selected"])
    return finished(figure)


def said_against_asked(frame: pd.DataFrame, *, variants: Sequence[str], columns: int = 3) -> Figure:
    """How often a word is said against how often it is asked for, one panel a variant: on the grey line, as asked.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, asked, value, low, high``, all probabilities; a variant without rows has no panel.
    variants : Sequence[str]
        In the order of the panels.
    columns : int
        Columns of the grid of panels.
    """
    shown = [variant for variant in variants if variant in set(frame["variant"])]
    figure, axes = panel_grid(len(shown), columns, 2.9, 2.9, sharex=True, sharey=True)
    for axis, variant in zip(axes, shown, strict=True):
        here, style = frame[frame["variant"] == variant].sort_values("asked"), look(variant, variants)
        axis.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=1.2)
        axis.fill_between(here["asked"], here["low"], here["high"], color=style.colour, alpha=0.2, linewidth=0)
        axis.plot(
            here["asked"], here["value"], color=style.colour, linestyle=style.line, marker=style.marker, markersize=5
        )
        axis.set_title(variant)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axis.tick_params(labelbottom=True)  # below a panel there may be none
    figure.supxlabel("probability asked for", size=11)
    figure.supylabel("probability said,\ngiven one of the two words", size=11)
    return finished(figure)
