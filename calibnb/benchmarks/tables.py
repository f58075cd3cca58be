"""The tables that claims rest on, and what sums them up; the claims stand in :mod:`calibnb.benchmarks.claims`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from calibnb.benchmarks.capability import summaries as capability_summaries
from calibnb.benchmarks.perplexity import summaries as perplexity_summaries
from calibnb.evidence import intervals
from calibnb.evidence.claims import SEED, Items, Measured, Parquet, Table, families

SPLITS = {  # of numbers: what ids and what texts call them
    "validation": ("in_range", "in range"),
    "unseen": ("unseen", "on unseen parameters"),
    "held_out": ("held_out", "on held-out families"),
}
FEW = 10  # questions whose positions are read: below, a distance from uniform says nothing

Frame = pd.DataFrame


def _named(rows: Frame) -> Frame:
    """With the columns ``key`` and ``where``: what ids and texts call the rows' splits."""
    names = [SPLITS[split] for split in rows["split"]]
    return rows.assign(key=[key for key, _ in names], where=[where for _, where in names])


# How tables are read


def _with_highest_mass(frame: Frame) -> Frame:
    return frame.assign(valid_mass_at_most=frame["valid_mass"] + frame["certificate"])


def _read_positions(measured: Measured, model: str, variants: Sequence[str]) -> Frame:
    """Shares and distances of one variant with their intervals, of which the measures already are the summary."""
    (variant,) = variants
    found = json.loads((measured.folder("positions", model) / f"{variant}.json").read_text())
    parse = {"measure": "parse", "value": found["parse_rate"]}
    exact = {"measure": "exact_total_variation", "value": found["exact_total_variation"]}
    rows = [row | {end: found[f"{row['measure']}_{end}"] for end in ("low", "high")} for row in (parse, exact)]
    if found["exact_questions"] < FEW:
        rows[1] |= dict.fromkeys(("value", "low", "high"))
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


def _read_ways(measured: Measured, model: str, variants: Sequence[str]) -> Frame:
    """The other ways of asking, whose names stand where else a variant's does."""
    folder = measured.folder("baselines", model)
    asked = pd.concat([pd.read_parquet(folder / f"{variant}.parquet") for variant in variants], ignore_index=True)
    return asked[~asked["variant"].isin(variants)]


def _read_tradeoff(measured: Measured, model: str, variants: Sequence[str]) -> Frame:
    """What ordinary examples change: methods that have them against the one that they are built on."""
    table = pd.read_csv(measured.root / "tradeoff.csv")
    table = table[(table["model"] == model) & table["against"].notna() & (table["against"] != "base")]
    able = table["measure"] == "right answers, difference"
    table = table.assign(measure=np.where(able, "capability", "w1"))[able | table["split"].isin(list(SPLITS))]
    names = [SPLITS.get(split, ("", "")) for split in table["split"]]  # capability has no splits
    return table.assign(key=[key for key, _ in names], where=[where for _, where in names])


def _read_losses(measured: Measured, model: str, variants: Sequence[str]) -> Frame:
    """The lowest validation loss of every training run of a method."""
    (method,) = variants
    folder = measured.folder("finetune", model) / method
    runs = [json.loads((folder / f"seed-{seed}.json").read_text()) for seed in measured.seeds]
    return pd.DataFrame({"seed": measured.seeds, "validation_loss": [run["validation_loss"] for run in runs]})


STRUCTURED = Table("numbers", Parquet("structured", prepare=_with_highest_mass))
OPENENDED = Table("variants", Parquet("openended"))
POSITIONS = Table("variants", _read_positions)
NOVELTY = Table("variants", Parquet("novelty"))
ENUMERATED = Table("variants", Parquet("language", "-exact"))
PARAPHRASES = Table("variants", Parquet("language", "-paraphrases"))
WAYS = Table("variants", _read_ways, together=True)
CAPABILITY = Table("retention", Parquet("capability"))
PERPLEXITY = Table("retention", Parquet("perplexity"))
TRADEOFF = Table("retention", _read_tradeoff, together=True)
TRAINING = Table("methods", _read_losses)
SAMPLED = Table("variants", Parquet("structured", "-sampled"), together=True)

# Statistics beside those of families and items


def on_numbers(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Family medians or their ratios, with the names of the splits."""
    return _named(families(own, other, measures, by=by, resamples=resamples))


def novel(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Means over prompts, and how many answers each got."""
    found = Items("id")(own, other, measures, by=by, resamples=resamples)
    return found.assign(generations=int(own["generations"].iloc[0]))


def right_answers(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """The score over all tasks, which count alike."""
    if other is None:
        found = capability_summaries.summarise(own, resamples=resamples, seed=SEED)
    else:
        found = capability_summaries.compare(own, other, resamples=resamples, seed=SEED)
    return found[found["task"] == capability_summaries.ALL].assign(measure="score")


def length_of_text(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Measures of all slices of text together."""
    if other is None:
        found = perplexity_summaries.summarise(own, resamples=resamples, seed=SEED)
    else:
        found = perplexity_summaries.compare(own, other, resamples=resamples, seed=SEED)
    return found[found["slice"] == "all"]


def over_seeds(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Means over training seeds with the range over them; ``first`` is the first seed."""
    runs = {measure: own[measure].to_list() for measure in measures}
    rows = [{"measure": m, "value": np.mean(x), "low": min(x), "high": max(x)} for m, x in runs.items()]
    return pd.DataFrame(rows).assign(first=own["seed"].iloc[0])


def inside_the_band(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """The share of sampled nW1 in the band that the exact law implies, among those ``drawn`` that have one."""
    drawn = own.dropna(subset=["expected"])
    if drawn.empty:
        return pd.DataFrame()
    inside = int(drawn["nw1"].between(drawn["low"], drawn["high"]).sum())
    low, high = intervals.wilson(inside, len(drawn))
    share = {"measure": "agreement", "value": inside / len(drawn), "low": low, "high": high, "drawn": len(drawn)}
    return pd.DataFrame([share])
