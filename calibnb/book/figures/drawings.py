"""Trees: a trie, a mask, a search that closes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from calibnb.book.style import finished, look, panel_grid, plain_log


def trie_drawing(
    parent: npt.ArrayLike,
    depth: npt.ArrayLike,
    mass: npt.ArrayLike,
    labels: Sequence[str],
    shares: npt.ArrayLike | None = None,
) -> Figure:
    """A trie from left to right: tokens on the nodes, edges as thick as the mass that passes them.

    Parameters
    ----------
    parent, depth, mass : [n] array-like
        Arrays of a `calibnb.trees.trie.Trie`, in depth-first order.
    labels : Sequence[str]
        ``[n]`` token texts.
    shares : [n] array-like or None
        Probability of each node given its parent, written on its edge.
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
    figure, (axis,) = panel_grid(1, 1, 1.75 * (level.max() + 1), max(2.4, 0.34 * leaves))
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
            axis.text(level[node] - 0.4, y[node] + 0.1, text, size=8, ha="center", va="bottom", color="#333333")
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
    return finished(figure)


def mask_picture(mask: npt.ArrayLike, labels: Sequence[str]) -> Figure:
    """Who attends to whom: a row a token, filled where it reads the column's token.

    Parameters
    ----------
    mask : [n, n] array-like
        True where the row attends to the column.
    labels : Sequence[str]
        ``[n]`` token texts.
    """
    cells = np.asarray(mask, bool)
    figure, (axis,) = panel_grid(1, 1, 0.3 * len(cells) + 1.5, 0.3 * len(cells) + 1.3)
    axis.imshow(cells, cmap=ListedColormap(["#F3F3F3", "#0072B2"]), interpolation="nearest", vmin=0, vmax=1)
    axis.set_xticks(range(len(cells)), labels, size=9, family="DejaVu Sans Mono", rotation=90)
    axis.set_yticks(range(len(cells)), labels, size=9, family="DejaVu Sans Mono")
    axis.set_xticks(np.arange(-0.5, len(cells)), minor=True)
    axis.set_yticks(np.arange(-0.5, len(cells)), minor=True)
    axis.grid(False, which="major")
    axis.grid(True, which="minor", color="white", linewidth=1)
    axis.tick_params(which="both", length=0)
    axis.set(xlabel="is read", ylabel="reads")
    return finished(figure)


def certificate_curve(frame: pd.DataFrame, *, variants: Sequence[str], tolerance: float) -> Figure:
    """How the unresolved probability of the search for all numbers falls with the prefixes expanded.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, nodes, certificate``.
    variants : Sequence[str]
        In the order of the legend.
    tolerance : float
        Where the search stops.
    """
    figure, (axis,) = panel_grid(1, 1, 6.4, 3.8)
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
        plain_log(side)
    axis.legend()
    return finished(figure)
