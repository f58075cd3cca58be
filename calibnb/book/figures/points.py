"""Values with intervals: variants side by side, measure by measure or over families, tasks and suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from calibnb.book.style import NW1, finished, look, panel_grid, plain_log, shared_legend, whisker_lengths

_PERFECT: dict[str, Any] = {
    "color": look("target").colour, "marker": look("target").marker, "linestyle": "none",
    "markersize": 22, "markeredgewidth": 2,
}  # fmt: skip


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
