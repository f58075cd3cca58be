"""What structured sampling found, summed up: family medians split by split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from calibnb.evidence import comparisons, results
from calibnb.evidence.splits import KEYS

MEASURES = (
    "nw1",
    "valid_mass",
    "certificate",
    "support_violation",
    "kl_format",
    "kl_shape",
    "total_variation",
    "kolmogorov",
    "top5_mass",
)


def record(frame: pd.DataFrame, *, resamples: int) -> dict[str, Any]:
    """The summary of a variant's settings for json: split -> measure -> value and interval, and counts."""
    found: dict[str, Any] = {}
    for row in comparisons.summarise(frame, MEASURES, resamples=resamples, seed=0).itertuples():
        part = found.setdefault(KEYS[str(row.split)], {})
        part |= {"families": row.families, "settings": row.settings}
        part[row.measure] = results.interval(row) | {"missing": row.missing}
    return found


def shown(found: Mapping[str, Any]) -> pd.DataFrame:
    """The values of a `record`, a row a measure and a column a split."""
    values = {split: {measure: part[measure]["value"] for measure in MEASURES} for split, part in found.items()}
    return pd.DataFrame(values).rename_axis("measure").reset_index()


def thinned(laws: pd.DataFrame, points: int = 200) -> pd.DataFrame:
    """Open laws for pictures: of the first adapter, with neighbouring numbers joined until few are left.

    No point of a cumulative curve moves by more than ``2 / points``: heavier numbers stay where they are.
    """
    first = laws[laws["seed"] == laws["seed"].min()]
    keys = ["model", "variant", "seed", "split", "label"]
    parts = []
    for key, law in first.groupby(keys, sort=False):
        law = law.sort_values("value", kind="stable")
        share = law["mass"].to_numpy() / law["mass"].sum()
        heavy, place = share >= 1 / points, np.floor(np.cumsum(share) * points)
        begins = heavy[1:] | heavy[:-1] | (place[1:] != place[:-1])
        group = np.concatenate([[0], np.cumsum(begins)])
        joined = law.groupby(group, sort=True).agg(value=("value", "last"), mass=("mass", "sum"))
        parts.append(joined.assign(**dict(zip(keys, key, strict=True))).astype({"value": "float32", "mass": "float32"}))
    thin: pd.DataFrame = pd.concat(parts, ignore_index=True)[[*keys, "value", "mass"]]
    return thin
