"""A few settings in full: what was asked for, what was answered before and after, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from calibnb.book.figures.curves import AREA, Overlay, answers_in_bins, bin_edges, target_in_bins
from calibnb.book.style import finished, look, panel_grid, shared_legend
from calibnb.laws.distances import is_discrete

# Two methods may answer alike: a wide line below and a narrow dashed one on it are both seen.
_WIDTHS = (3.4, 1.5)
_BINS = 16
Line = Literal["-", "--", ":"]


@dataclass(frozen=True)
class Example:
    """A setting with its answers and their distances from the target.

    Attributes
    ----------
    heading : str
        What the setting is an example of.
    setting : Overlay
        Its target, the range shown and the answers by variant.
    distances : Mapping[str, float]
        Variant -> nW1; nan where it is not determined.
    """

    heading: str
    setting: Overlay
    distances: Mapping[str, float]


def examples(shown: Sequence[Example], *, before: str, after: Sequence[str]) -> Figure:
    """One panel a setting: the target as an area, the answers before and after calibration as lines.

    Heights are probabilities of equal bins. In the corner of a panel stand the distances.

    Parameters
    ----------
    shown : Sequence[Example]
        From left to right.
    before : str
        The variant that is the reference.
    after : Sequence[str]
        The variants that were calibrated.
    """
    variants = (before, *after)
    figure, axes = panel_grid(len(shown), 3, 2.9, 2.9)
    for axis, example in zip(axes, shown, strict=True):
        _panel(axis, example, variants)
    axes[0].set_ylabel("probability of a bin")
    figure.supxlabel("answer", size=11)
    lines = [
        Line2D([], [], color=look(name, variants).colour, linestyle=line, linewidth=width)
        for name, (line, width) in _lines(variants).items()
    ]
    names = ["target", *(f"{name}, as it comes" if name == before else name for name in variants)]
    shared_legend(figure, [Patch(color=AREA), *lines], names)
    return finished(figure)


def _lines(variants: Sequence[str]) -> dict[str, tuple[Line, float]]:
    """Line style and width by variant, in the order in which they are drawn."""
    before, *after = variants
    calibrated: list[tuple[Line, float]] = [("-", _WIDTHS[0])]
    calibrated += [("--", _WIDTHS[1])] * (len(after) - 1)
    return {before: (":", 2.4), **dict(zip(after, calibrated, strict=False))}


def _panel(axis: Axes, example: Example, variants: Sequence[str]) -> None:
    setting = example.setting
    edges = bin_edges(setting.law, setting.low, setting.high, _BINS)
    axis.stairs(target_in_bins(setting.law, edges), edges, fill=True, color=AREA)
    rows = [("nW1", "#222222")]
    for variant, (line, width) in _lines(variants).items():
        if variant not in setting.answers:
            continue
        style = look(variant, variants)
        if np.sum(setting.answers[variant][1]) > 0:  # else there is no number among the answers
            heights = answers_in_bins(*setting.answers[variant], edges)
            axis.stairs(heights, edges, color=style.colour, linestyle=line, linewidth=width)
        distance = example.distances[variant]
        shown = "not determined" if math.isnan(distance) else f"{distance:.2f}"
        rows.append((f"{variant}  {shown}", style.colour))
    family, _, parameters = setting.title.partition("(")
    axis.set_title(f"{example.heading}\n{family.replace('_', ' ')}, {parameters.rstrip(')')}", size=10)
    axis.set_ylim(0, axis.get_ylim()[1] * 1.45)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=is_discrete(setting.law)))
    axis.grid(False)
    for place, (text, colour) in enumerate(rows):
        at: dict[str, Any] = {"transform": axis.transAxes, "ha": "right", "va": "top"}
        axis.text(0.97, 0.97 - 0.095 * place, text, color=colour, size=10, weight="bold", **at)
