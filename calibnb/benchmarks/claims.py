"""The study's claims: those of every benchmark, and those on training itself and on what ordinary examples change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from calibnb.evidence import verdicts
from calibnb.evidence.claims import Claim, Section, Table, as_stated
from calibnb.evidence.runs import Run
from calibnb.evidence.wording import WHERE, named

Frame = pd.DataFrame


def _read_tradeoff(run: Run, model: str, variants: Sequence[str]) -> Frame:
    """What ordinary examples change: methods that have them against the one that they are built on."""
    table = pd.read_csv(run.root / "tradeoff.csv")
    table = table[(table["model"] == model) & table["against"].notna() & (table["against"] != "base")]
    able = table["measure"] == "right answers, difference"
    table = table.assign(measure=np.where(able, "capability", "w1"))[able | table["split"].isin(list(WHERE))]
    return named(table)  # capability has no splits


def _read_losses(run: Run, model: str, variants: Sequence[str]) -> Frame:
    """The lowest validation loss of every training run of a method."""
    (method,) = variants
    folder = run.folder("finetune", model) / method
    runs = [json.loads((folder / f"seed-{seed}.json").read_text()) for seed in run.seeds]
    return pd.DataFrame({"seed": run.seeds, "validation_loss": [run["validation_loss"] for run in runs]})


def over_seeds(own: Frame, other: Frame | None, measures: Sequence[str], *, by: str, resamples: int) -> Frame:
    """Means over training seeds with the range over them; ``first`` is the first seed."""
    runs = {measure: own[measure].to_list() for measure in measures}
    rows = [{"measure": m, "value": np.mean(x), "low": min(x), "high": max(x)} for m, x in runs.items()]
    return pd.DataFrame(rows).assign(first=own["seed"].iloc[0])


TABLE_OF_TRADEOFF = Table("capability", _read_tradeoff, together=True)
TABLE_OF_TRAINING = Table("methods", _read_losses)

_mixed = partial(
    Claim,
    TABLE_OF_TRADEOFF,
    as_stated,
    source="results/tradeoff.csv#{variant}",
)
TRADEOFF: Section = (
    _mixed(
        "capability",
        id="tradeoff.{variant}.capability",
        question="Do ordinary examples keep capability: {variant} against {against}?",
        claim="{variant} answers more questions right than {against}",
        unit="difference of the shares of right answers",
        rule=verdicts.above_zero,
    ),
    _mixed(
        "w1",
        id="tradeoff.{variant}.{key}.w1",
        question="What do ordinary examples change in the fidelity of {variant} {where}, against {against}?",
        unit="ratio of family medians of nW1",
    ),
)
TRAINING: Section = (
    Claim(
        TABLE_OF_TRAINING,
        over_seeds,
        "validation_loss",
        id="finetune.{variant}.validation_loss",
        question="What is the lowest validation loss of {variant}?",
        unit="nats per answer, range over seeds",
        source="results/finetune/{slug}/{variant}/seed-{first}.json#validation_loss",
    ),
)
