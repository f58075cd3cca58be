"""Results of a study that are made up: small tables of every benchmark, in the columns that the benchmarks write."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from notebook_code import ROOT

from calibnb.benchmarks import registry
from calibnb.benchmarks.baselines.beside import gather
from calibnb.pipeline import params
from calibnb.training.params import FinetuneParams

VARIANTS = ["base", "format", "soft", "hard", "mixed"]
METHODS: dict[str, FinetuneParams] = params.load(ROOT / "params.yaml").finetune
# Which of the questions the baselines ask in other ways.
ASKED: dict[str, Any] = {"language": {"ids": ["choices.a", "choices.b"]}, "novelty": {"ids": ["p"]}}
ASKED["positions"] = {"answers": 3}


def write(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)


def tables(root: Path, models: Sequence[str], variants: Sequence[str] = VARIANTS, seed: int = 0) -> None:
    """Write the results of `models` (whose names are their places) below `root`, with random numbers."""
    rng = np.random.default_rng(seed)

    def random(rows: dict[str, Any], *measures: str) -> pd.DataFrame:
        frame = pd.DataFrame(rows)
        return frame.assign(**{measure: rng.uniform(0.1, 0.9, len(frame)) for measure in measures})

    def letters(who: dict[str, Any]) -> pd.DataFrame:
        frame = random({"question": ["q", "r"], "order": ["ABCD", "BADC"], "right": [0, 2]} | who, "letter_mass")
        law = rng.dirichlet(np.ones(4), len(frame))
        return frame.assign(domain="physics", **{f"p_{k}": law[:, i] for i, k in enumerate("ABCD")})

    settings = {"split": ["validation", "unseen", "held_out"] * 2, "family": list("aabbcc"), "label": list("123456")}
    closed = ("nw1", "valid_mass", "certificate", "kl_format", "kl_shape", "nw1_slack", "total_variation")
    numbers = (*closed, "kolmogorov", "top5_mass", "support_violation")
    answers = [
        *("unique_fraction_folded", "support_0.90", "numbers", "member_mass", "uniform_tv", "valid_unique_fraction"),
        *("entropy", "effective_support", "support_0.50", "unique_fraction", "empty", "top_share", "valid_share"),
    ]
    bands = {
        "nw1": [0.5, 0.5, 0.5, 0.5],
        "expected": [0.5, 0.5, 0.5, math.nan],
        "low": [0.4, 0.5, 0.6, 0.0],
        "high": 0.7,
    }
    pairs = ("heads/tails", "cat/dog", "yes/no")  # of the last no training sees anything but the wording
    mixed = [(p, o, a) for p in pairs for o in ("as listed", "swapped") for a in (0.2, 0.6, 0.9)]
    mixing = pd.DataFrame(mixed, columns=["pair", "order", "asked"]).to_dict("list")
    mixing |= {"wording": "per cent", "first": "a", "second": "b", "held_out": False}
    drawn = ("nw1", "repeats", "runs_z", "lag1", "same_first", "same_list")
    prompts = ("distinct", "numbers", "utility", "distinct_fraction", "short")
    texts = {"text": list("xyz"), "letter": ["A", "B", None], "parsed": [True, True, False], "reason": ["", "", "none"]}
    texts |= {"strict": [True, False, False], "distinct_options": [True, True, False]}
    for model, variant in ((model, variant) for model in models for variant in variants):
        who = {"model": model, "variant": variant, "seed": -1 if variant == "base" else 11}
        found = {
            "structured/settings": random(settings | who, *numbers),
            "told/settings": random(
                settings | who | {"nw1_untold": [0.2, 0.5, 0.8] * 2, "nw1_told": [0.2, 0.3, 0.4] * 2},
                *(f"{part}_{way}" for part in ("place", "shape", "valid_mass") for way in ("untold", "told")),
                *("followed_place", "followed_spread"),
            ),
            "structured/sampled": pd.DataFrame(bands | who),
            "openended/categories": random({"category": ["animal", "city"]} | who, *answers),
            "positions/texts": pd.DataFrame(texts | who),
            "positions/choices": letters(who),
            "novelty/prompts": random({"id": ["p", "q"], "generations": 3, "empty": 0} | who, *prompts),
            "language/exact": random(
                {"id": list("abcd"), "suite": ["implicit"] * 2 + ["choices"] * 2} | who, "normalised_tv", "valid_mass"
            ),
            "language/paraphrases": random(
                {"label": ["1", "2"], "suite": "paraphrases", "wording": "odd"} | who, "nw1", "valid_mass"
            ),
            "language/sampled": random(
                {"id": ["e"], "suite": ["draws"], "first_tv_ratio": [math.nan]} | who, "valid", "pooled_tv_ratio"
            ),
            "mixing/items": random(mixing | who, "said", "either", "divergence"),
            "sequences/prompts": random(
                {"label": ["normal, mean 5, sd 2", "die, 6 sides"] * 2, "wording": 0, "asked": [3, 3, 6, 6]} | who,
                *("given", "in_lists", "as_many"),
                *(name + end for name in drawn for end in ("", "_perfect")),
            ),
            "sequences/pooled": pd.DataFrame(
                {"label": ["normal, mean 5, sd 2"] * 2 + ["die, 6 sides"], "wording": 0, "asked": 3}
                | {"value": [4.5, 6.0, 3.0], "count": [1, 2, 3]}
                | who
            ),
            "sequences/shuffles": random(
                {"label": ["animals", "tens"]} | who,
                *("valid", "first_tv", "unchanged", "inversions", "displacement"),
                *("first_tv_perfect", "unchanged_perfect", "inversions_perfect", "displacement_perfect"),
            ),
            "capability/questions": random(
                {"task": ["arithmetic"] * 2 + ["facts"] * 2, "item": [1, 2, 1, 2]} | who, "score"
            ),
            "capability/arithmetic": random(
                {"task": ["word_problems"] * 2, "item": [1, 2]} | who, "strict", "lenient", "cut"
            ),
            "perplexity/documents": random(
                {"slice": "prose", "document": [1, 2], "tokens": 5, "bytes": 20} | who, "nll"
            ),
        }
        asked = ["", *(["ssot", "verbalised"] if variant == "base" else [])]

        def ways(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
            return pd.concat([frame.assign(way=way) for way in names], ignore_index=True)

        few = random({"label": ["1", "2"]} | who, "valid_mass", "number_mass", "nw1")
        words = random(
            {"category": ["animal", "city"], "draws": 4, "empty": [0, 1]} | who,
            *("unique_fraction_folded", "valid_share", "valid_unique_fraction"),
        )
        found |= {"baselines/structured": ways(few, asked), "baselines/openended": ways(words, asked)}
        if variant == "base":
            given = random({"id": ["a", "b"], "suite": "choices"} | who, "valid", "normalised_tv")
            lists = random({"id": ["e"], "suite": "draws"} | who, "valid", "pooled_tv_ratio", "first_tv_ratio")
            rest = {"positions": found["positions/texts"], "novelty": found["novelty/prompts"]}
            rest |= {"choices": given, "lists": lists}
            found |= {f"baselines/{name}": ways(frame, asked[1:]) for name, frame in rest.items()}
        for name, frame in found.items():
            benchmark, table = name.split("/")
            write(root / benchmark / model / variant / f"{table}.parquet", frame)
        for name, content in {
            **{f"{name}/{model}/{variant}.json": {"tflop": 1.0} for name in registry.blocks()},
            f"positions/{model}/{variant}.json": {"tflop": 3.0, "answers": 3.0, "parsed": 2.0, "parse_rate": 0.5}
            | {"parse_low": 0.4, "parse_high": 0.6}
            | {"exact_total_variation": 0.3, "exact_total_variation_low": 0.2, "exact_total_variation_high": 0.4}
            | {"exact_questions": 9.0 if variant == "soft" else 10.0},
            f"finetune/{model}/{variant}/seed-11.json": {"validation_loss": 2.0, "tflop": 10.0},
            f"finetune/{model}/{variant}/seed-12.json": {"validation_loss": 3.0, "tflop": 20.0},
            f"ordinary/{model}.json": {"tflop": 0.5},
            f"temperature/{model}.json": {"tflop": 0.25},
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(json.dumps(content))
    beside = [gather(root, model, variants, [11, 12], ASKED) for model in models]
    write(root / "baselines" / "beside.parquet", pd.concat(beside, ignore_index=True))
