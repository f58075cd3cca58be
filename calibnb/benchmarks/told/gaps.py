"""What it brings to be told where the law lies: a smaller distance, and a smaller gap between in range and held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from calibnb.evidence import comparisons, intervals
from calibnb.evidence.claims import SEED
from calibnb.evidence.wording import named

FAR, NEAR = "held_out", "validation"


def _by_family(frame: pd.DataFrame, column: str, split: str) -> pd.Series[float]:
    """Mean of a column over settings and seeds, by family; families without a value are left out."""
    return frame[frame["split"] == split].groupby("family")[column].mean().dropna()


def gap_closed(
    own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
) -> pd.DataFrame:
    """``1 - (gap when told) / (gap when not told)``, a gap being the family median of nW1 held out less that in range.

    Parameters
    ----------
    own : DataFrame
        Rows of ``split, family, nw1_told, nw1_untold``; what is told is read of these.
    other : DataFrame or None
        What is not told is read of these; of `own`, if None.
    measures, by, resamples
        As every statistic has them; `measures` and `by` say nothing here.

    Returns
    -------
    DataFrame
        One row with the measure ``gap_closed``, its 95 % interval and the families of the smaller split. Families are
        drawn again within each of the two splits, the same for both. Empty where a split is missing, or where held-out
        families are no harder untold.
    """
    plain = own if other is None else other
    pairs = {}
    for split in (NEAR, FAR):
        told, untold = _by_family(own, "nw1_told", split), _by_family(plain, "nw1_untold", split)
        both = pd.concat([told, untold], axis=1, join="inner").to_numpy(float)
        if not len(both):
            return pd.DataFrame()
        pairs[split] = both

    def closed(near: npt.NDArray[np.float64], far: npt.NDArray[np.float64]) -> float:
        told, untold = np.median(far, axis=0) - np.median(near, axis=0)
        return float(1 - told / untold) if untold else float("nan")

    if np.median(pairs[FAR], axis=0)[1] <= np.median(pairs[NEAR], axis=0)[1]:
        return pd.DataFrame()
    value = closed(pairs[NEAR], pairs[FAR])
    rng = np.random.default_rng(SEED)

    def again(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return rows[rng.integers(len(rows), size=len(rows))]

    drawn = np.array([closed(again(pairs[NEAR]), again(pairs[FAR])) for _ in range(resamples)])
    drawn = drawn[~np.isnan(drawn)]  # without a gap nothing can close
    low, high = intervals.percentiles(drawn, 0.95)
    fewest = min(map(len, pairs.values()))
    return pd.DataFrame([{"measure": "gap_closed", "value": value, "low": low, "high": high, "families": fewest}])


def told_ratio(
    own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
) -> pd.DataFrame:
    """Family median of nW1 when told, as a multiple of that when not told, split by split.

    Parameters
    ----------
    own, other, measures, by, resamples
        As :func:`gap_closed` has them, with the column ``label``, by which settings are paired.

    Returns
    -------
    DataFrame
        Rows of ``split, key, where, value, low, high, families`` with the measure ``told_ratio``.
    """
    told, untold = own.assign(nw1=own["nw1_told"]), own if other is None else other
    rows = comparisons.compare(told, untold.assign(nw1=untold["nw1_untold"]), "nw1", resamples=resamples, seed=SEED)
    return named(rows).assign(measure="told_ratio")
