"""Ways of asking beside each other: one summary over some questions of every benchmark of randomness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from calibnb.benchmarks.language import suites
from calibnb.benchmarks.positions import measures as positions_measures
from calibnb.evidence import intervals, results

# Of every variant; and of the ways of asking alone, beside which stands what variants answered elsewhere.
EVERY, WAYS = ("structured", "openended"), ("positions", "novelty", "choices", "lists")

Frame = pd.DataFrame


def _by_way(frame: Frame) -> Frame:
    """With the name of the way of asking where else a variant's stands."""
    return frame.assign(variant=frame["way"].where(frame["way"] != "", frame["variant"]))


def read(folder: Path, variants: Sequence[str], seeds: Sequence[int]) -> dict[str, Frame]:
    """The tables of one model.

    Parameters
    ----------
    folder : Path
        Folder of the model's results of this benchmark.
    variants : Sequence[str]
        Those measured. Without ``base`` among them, nothing was asked in another way.
    seeds : Sequence[int]
        Seeds of training.
    """
    tables = {name: results.measurements(folder, variants, name, seeds) for name in EVERY}
    if "base" in variants:
        tables |= {name: results.measurements(folder, ["base"], name, seeds) for name in WAYS}
    return tables


def summarise(tables: Mapping[str, Frame], beside: Frame | None, *, resamples: int) -> Frame:
    """Means with 95 % intervals.

    Parameters
    ----------
    tables : Mapping[str, Frame]
        As `read` gives them.
    beside : Frame or None
        Rows of ``benchmark, variant`` and their own columns: what variants answered plainly to the questions of
        :data:`WAYS`, which :mod:`calibnb.benchmarks.baselines.beside` gathers; None where there is nothing.
    resamples : int
        Resamples of the bootstrap.

    Returns
    -------
    Frame
        Rows of ``benchmark, variant, measure, value, low, high, items, missing``.
    """

    def part(benchmark: str, *names: str) -> Frame:
        frames = [_by_way(tables[name]) for name in names if name in tables]
        if beside is not None:
            frames.append(beside[beside["benchmark"] == benchmark].dropna(axis=1, how="all").infer_objects())
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["variant"])

    numbers, words = _by_way(tables["structured"]), _by_way(tables["openended"])
    words = words.assign(answered=1 - words["empty"] / words["draws"])
    means: list[tuple[str, Frame, str, list[str]]] = [
        ("structured", numbers, "label", ["valid_mass", "number_mass", "nw1"]),
        (
            "openended",
            words,
            "category",
            ["answered", "unique_fraction_folded", "valid_share", "valid_unique_fraction"],
        ),
    ]
    ideas, said, written = (
        part("novelty", "novelty"),
        part("language", "choices", "lists"),
        part("positions", "positions"),
    )
    if len(ideas):
        ideas = ideas.assign(answered=1 - ideas["empty"] / ideas["generations"])
        means.append(("novelty", ideas, "id", ["answered", "distinct"]))
    if len(said):
        columns = ["valid", "valid_mass", "normalised_tv", "pooled_tv_ratio", "first_tv_ratio"]
        said = said.reindex(columns=[*said.columns, *(name for name in columns if name not in said)])
        said = said.assign(item=said["suite"] + "." + said["id"], valid=said["valid"].fillna(said["valid_mass"]))
        means += [
            ("language", said, "item", ["valid"]),
            ("language", said[said["suite"].isin(suites.EXACT)], "item", ["normalised_tv"]),
            ("language", said[said["suite"] == "draws"], "item", ["pooled_tv_ratio"]),
            ("language", said[said["suite"] == "shuffles"], "item", ["first_tv_ratio"]),
        ]
    rows = [
        intervals.summarise_items(own, measures, item=item, resamples=resamples, seed=0).assign(
            benchmark=benchmark, variant=name
        )
        for benchmark, frame, item, measures in means
        for name, own in frame.groupby("variant", sort=False)
    ]
    if len(written):
        rows += [_positions(own).assign(variant=name) for name, own in written.groupby("variant", sort=False)]
    return pd.concat(rows, ignore_index=True)


def _positions(texts: Frame) -> Frame:
    """The one prompt of answer positions: a share of texts, and a distance over what a uniform sampler would show."""
    counted = positions_measures.summary(texts)
    about = {"benchmark": "positions", "items": counted["answers"], "missing": 0}
    share = {"value": counted["parse_rate"], "low": counted["parse_low"], "high": counted["parse_high"]}
    ratio = counted["total_variation"] / counted["total_variation_uniform"]
    return pd.DataFrame(
        [
            about | {"measure": "parsed"} | share,
            about | {"measure": "letters_tv_ratio", "value": ratio, "low": float("nan"), "high": float("nan")},
        ]
    )
