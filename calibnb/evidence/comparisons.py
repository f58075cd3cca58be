"""Variants summed up over families and settings, and compared on the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from calibnb.evidence.intervals import family_median_interval, family_median_ratio, missing


def over_seeds(frame: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """One row a setting: the mean of each measure over training seeds.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``split, family, label``, any number of seeds, and the measures.
    measures : Sequence[str]
        Columns to average.
    """
    return frame.groupby(["split", "family", "label"], sort=False, as_index=False)[list(measures)].mean()


def typical(frame: pd.DataFrame, reference: pd.DataFrame, measure: str) -> dict[str, str]:
    """The setting of each split that stands for it: a measure differs there by the split's median factor.

    Of an even number of settings it is that with the larger factor of the two in the middle.

    Parameters
    ----------
    frame, reference : DataFrame
        Rows of ``split, family, label`` and the measure, of two variants.
    measure : str
        The column; a setting without a factor is left out.

    Returns
    -------
    dict[str, str]
        Label by split, splits in the order of ``frame``.
    """
    pair = _paired(frame, reference, measure)
    factor = pair[f"{measure}_top"] / pair[f"{measure}_bottom"]
    ordered = pair.assign(factor=factor).dropna(subset=["factor"]).sort_values("factor", kind="stable")
    parts = {str(split): part["label"] for split, part in ordered.groupby("split", sort=False)}
    return {split: str(parts[split].iloc[len(parts[split]) // 2]) for split in pair["split"].unique() if split in parts}


def _paired(frame: pd.DataFrame, reference: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure of two variants side by side, a row a setting that both have."""
    return over_seeds(frame, [measure]).merge(
        over_seeds(reference, [measure]), on=["split", "family", "label"], suffixes=("_top", "_bottom")
    )


def summarise(frame: pd.DataFrame, measures: Sequence[str], *, resamples: int, seed: int) -> pd.DataFrame:
    """Family medians of a variant with their intervals.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``split, family, label``, any number of seeds, and the measures.
    measures : Sequence[str]
        Columns to sum up.
    resamples, seed : int
        Resamples and seed of the bootstrap.

    Returns
    -------
    DataFrame
        Rows of ``split, measure, value, low, high, families, settings, missing``, splits in the order of ``frame``.
    """
    rows = []
    for split, part in over_seeds(frame, measures).groupby("split", sort=False):
        for measure in measures:
            values = part[measure].to_numpy(float)
            estimate = family_median_interval(part["family"].tolist(), values, resamples=resamples, seed=seed)
            count = {"families": part["family"].nunique(), "settings": len(part), "missing": missing(values)}
            rows.append({"split": split, "measure": measure} | estimate._asdict() | count)
    return pd.DataFrame(rows)


def compare(frame: pd.DataFrame, reference: pd.DataFrame, measure: str, *, resamples: int, seed: int) -> pd.DataFrame:
    """Ratio of family medians of two variants, split by split, settings paired by their label.

    Returns
    -------
    DataFrame
        Rows of ``split, value, low, high, families``, the last those with a value of both.
    """
    rows = []
    for split, part in _paired(frame, reference, measure).groupby("split", sort=False):
        top, bottom = part[f"{measure}_top"].to_numpy(float), part[f"{measure}_bottom"].to_numpy(float)
        ratio = family_median_ratio(part["family"].tolist(), top, bottom, resamples=resamples, seed=seed)
        both = ~np.isnan(top) & ~np.isnan(bottom)
        rows.append({"split": split} | ratio._asdict() | {"families": part.loc[both, "family"].nunique()})
    return pd.DataFrame(rows)
