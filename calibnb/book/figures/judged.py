"""Claims counted by what became of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from calibnb.book.style import finished, panel_grid

# Sides of a claim in the palette's colours, the rest in greys and hatched: told apart without colour as well.
VERDICTS = {
    "supported": ("#0072B2", ""),
    "open": ("#D9D9D9", ""),
    "refuted": ("#D55E00", "//"),
    "not comparable": ("#FFFFFF", ".."),
    "not determined": ("#FFFFFF", "xx"),
}


def verdict_bars(frame: pd.DataFrame) -> Figure:
    """One bar a chapter, cut into the numbers of claims of each verdict.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``chapter, verdict, count``; chapters stand in their order from top to bottom.
    """
    chapters = list(dict.fromkeys(frame["chapter"]))
    counts = frame.pivot_table(index="chapter", columns="verdict", values="count", aggfunc="sum", fill_value=0)
    counts = counts.reindex(chapters)
    figure, (axis,) = panel_grid(1, 1, 8.0, 0.34 * len(chapters) + 1.3)
    start = np.zeros(len(chapters))
    for verdict, (colour, hatch) in VERDICTS.items():
        if verdict not in counts:
            continue
        width = counts[verdict].to_numpy(float)
        bars = axis.barh(
            chapters, width, left=start, color=colour, hatch=hatch, edgecolor="#222222", linewidth=0.6, label=verdict
        )
        labels = [f"{count:.0f}" if count else "" for count in width]
        for text in axis.bar_label(bars, labels, label_type="center", size=9):
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})
        start += width
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("claims")
    # Below: what stands above a part of a larger figure is its model.
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=len(VERDICTS))
    return finished(figure)
