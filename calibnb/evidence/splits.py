"""The splits of the study as ids, files and texts call them, and family medians split by split."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from calibnb.evidence.claims import families

KEYS = {"validation": "in_range", "unseen": "unseen", "held_out": "held_out"}
WHERE = {"validation": "in range", "unseen": "on unseen parameters", "held_out": "on held-out families"}


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """With the columns ``key`` and ``where``: what ids and texts call the rows' splits."""
    return rows.assign(key=rows["split"].map(KEYS), where=rows["split"].map(WHERE))


def by_split(
    own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
) -> pd.DataFrame:
    """Family medians or their ratios, with the names of the splits."""
    return named(families(own, other, measures, by=by, resamples=resamples))
