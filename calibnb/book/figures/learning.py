"""Training: losses, learning curves, how prompts are packed, what it takes beside all else."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from calibnb.book.style import NW1, SPLITS, finished, look, panel_grid, shared_legend


def loss_curves(log: pd.DataFrame, *, methods: Sequence[str], window: int = 10) -> Figure:
    """Training loss (each method's own) and validation KL (the same for all) against the prompts seen.

    Parameters
    ----------
    log : DataFrame
        Rows of ``method, seed, prompts, loss, validation``; validation is nan where it did not run. Nats.
    methods : Sequence[str]
        In the order of the legend.
    window : int
        Steps of the running mean that is drawn over the raw training loss.
    """
    figure, (left, right) = panel_grid(2, 2, 4.6, 3.8)
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
    right.set(xlabel="prompts seen", ylabel="KL(target || model), nats per answer", title="on validation settings")
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    shared_legend(figure, *right.get_legend_handles_labels())
    return finished(figure)


def learning_curves(
    frame: pd.DataFrame,
    *,
    variants: Sequence[str],
    splits: Sequence[str],
    label: str = NW1,
    x: str = "prompts",
) -> Figure:
    """A measure at checkpoints of one long run a method, one panel a split, with its interval as a band.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, split, value, low, high`` and the column ``x``.
    variants : Sequence[str]
        In the order of the legend.
    splits : Sequence[str]
        Keys of `SPLITS`, from left to right.
    label : str
        Name and unit of the value.
    x : str
        Column of the horizontal axis: what has been seen so far.
    """
    figure, axes = panel_grid(len(splits), 3, 3.4, 3.3, sharey=True)
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
    shared_legend(figure, handles, labels)
    return finished(figure)


def packed_rows(kinds: npt.ArrayLike, names: Sequence[str]) -> Figure:
    """What one optimiser step reads: one row a packed sequence, one cell a token.

    Parameters
    ----------
    kinds : [rows, length] array-like
        Index into ``names`` of each token.
    names : Sequence[str]
        Such as ``["padding", "prompt", "answer"]``; the first is drawn pale.
    """
    cells = np.asarray(kinds, int)
    colours = ["#F0F0F0", "#56B4E9", "#D55E00", "#009E73", "#CC79A7"][: len(names)]
    figure, (axis,) = panel_grid(1, 1, 9.0, max(1.8, 0.16 * len(cells) + 1.3))
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
    shared_legend(figure, [Patch(facecolor=c, edgecolor="#888888") for c in colours], list(names))
    return finished(figure)


def operations(frame: pd.DataFrame, *, training: str) -> Figure:
    """What each kind of stage takes: a bar each, with its number and share; that of training is hatched.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``kind, tflop``, from top to bottom; 10^12 floating-point operations.
    training : str
        The kind that is training.
    """
    figure, (axis,) = panel_grid(1, 1, 7.6, 0.34 * len(frame) + 0.9)
    trains = frame["kind"] == training
    colours = np.where(trains, look("soft").colour, look("base").colour)
    bars = axis.barh(frame["kind"], frame["tflop"], color=colours, edgecolor="white", height=0.7)
    for bar in np.asarray(bars.patches)[trains.to_numpy()]:
        bar.set_hatch("//")
    shares = frame["tflop"] / frame["tflop"].sum()
    axis.bar_label(
        bars, [f"{n:.3g}  ({s:.0%})" for n, s in zip(frame["tflop"], shares, strict=True)], padding=4, size=9
    )
    axis.set(xlabel="TFLOP (share of all)")
    axis.margins(x=0.25)
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    return finished(figure)
