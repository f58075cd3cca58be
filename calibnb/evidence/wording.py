"""What texts call the splits of the study."""

from __future__ import annotations

import pandas as pd

from calibnb.evidence.splits import KEYS

WHERE = {"validation": "in range", "unseen": "on unseen parameters", "held_out": "on held-out families"}


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """With the columns ``key`` and ``where``: what ids and texts call the rows' splits."""
    return rows.assign(key=rows["split"].map(KEYS), where=rows["split"].map(WHERE))
