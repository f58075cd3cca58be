"""What variants answered plainly to the questions that the baselines ask in other ways, and to their other wordings.

    python -m calibnb.benchmarks.baselines.beside

The benchmarks have asked them already: their rows on the same questions are gathered in one table, so that the chapter
on the baselines depends on it and on no other benchmark.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from calibnb import parameters
from calibnb.benchmarks.baselines import items
from calibnb.benchmarks.baselines.params import BaselinesParams
from calibnb.blocks import Names, Seeds
from calibnb.evidence import results
from calibnb.models.places import place

TABLE = Path("results/baselines/beside.parquet")

# benchmark, table, columns that are kept
LANGUAGE = ["suite", "id", "valid", "valid_mass", "normalised_tv", "pooled_tv_ratio", "first_tv_ratio"]
NOVELTY = ["id", "empty", "generations", "distinct"]


def gather(
    root: Path, model: str, variants: Sequence[str], seeds: Sequence[int], asked: Mapping[str, Any]
) -> pd.DataFrame:
    """The rows of one model.

    Parameters
    ----------
    root : Path
        Root of the results.
    model : str
        The model whose rows are wanted.
    variants, seeds : Sequence[str], Sequence[int]
        Those of the study.
    asked : Mapping[str, Any]
        What was asked, by benchmark: ids of questions, and how many questions variants were to write (``positions``).

    Returns
    -------
    DataFrame
        Rows of ``benchmark, model, variant, seed`` and the columns of their benchmark; ``wordings`` are settings asked
        in the study's own wording and in others.
    """

    def rows(benchmark: str, table: str) -> pd.DataFrame:
        return results.measurements(root / benchmark / place(model), variants, table, seeds)

    said = pd.concat([rows("language", "exact"), rows("language", "sampled")], ignore_index=True)
    said = said[(said["suite"] + "." + said["id"]).isin(asked["language"]["ids"])]
    ideas = rows("novelty", "prompts")
    ideas = ideas[ideas["id"].isin(asked["novelty"]["ids"])]
    words, own = rows("language", "paraphrases"), rows("structured", "settings")
    own = own[(own["split"] != "validation") & own["label"].isin(set(words["label"]))].assign(wording="the study's own")
    parts = {
        "language": said[[*WHO, *(name for name in LANGUAGE if name in said)]],
        "novelty": ideas[[*WHO, *NOVELTY]],
        "wordings": pd.concat([words, own], ignore_index=True)[[*WHO, "wording", "label", "nw1"]],
    }
    if asked["positions"]["answers"] != "none":
        parts["positions"] = rows("positions", "texts").drop(columns="text")
    return pd.concat([part.assign(benchmark=name) for name, part in parts.items()], ignore_index=True)


WHO = ["model", "variant", "seed"]


def main() -> int:
    """Gather the rows of the study in the working directory; returns the exit status."""
    study = parameters.load(
        "params.yaml", benchmarks={"baselines": BaselinesParams}, models=Names, seeds=Seeds, variants=Names
    )
    variants = study.benchmarks.baselines.measured(study.variants)
    asked = json.loads(items.ASKED.read_text(encoding="utf-8"))
    found = [gather(Path("results"), model, variants, study.seeds, asked) for model in study.models]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(found, ignore_index=True).to_parquet(TABLE, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
