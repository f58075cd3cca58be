"""The splits of the study as ids, files and texts call them."""

from __future__ import annotations

import pandas as pd

KEYS = {"validation": "in_range", "unseen": "unseen", "held_out": "held_out"}
WHERE = {"validation": "in range", "unseen": "on unseen parameters", "held_out": "on held-out families"}


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """With the columns ``key`` and ``where``: what ids and texts call the rows' splits."""
    return rows.assign(key=rows["split"].map(KEYS), where=rows["split"].map(WHERE))
