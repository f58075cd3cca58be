"""The judge: who says whether two answers say the same, fetched once and tried on pairs of known verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calibnb.benchmarks.novelty import judges, minilm, prompt_sets
from calibnb.evidence import intervals, results
from calibnb.models import loading


def prepare(study: Any, folder: Path) -> None:
    """Write ``judge.json`` and ``pairs.parquet``, the score of every pair, and fetch the encoder if none is named.

    Parameters
    ----------
    study
        The whole of params.yaml.
    folder : Path
        Where the files go.
    """
    how = study.benchmarks.novelty
    device = loading.pick_device(study.compute.device)
    known = prompt_sets.load_pairs()
    pairs = list(zip(known["a"], known["b"], strict=True))
    if how.classifier is None:
        minilm.fetch_encoder(folder / judges.ENCODER)
        with judges.Encoder(folder / judges.ENCODER, batch=how.judge_batch, device=device) as encoder:
            score = encoder.similarities(pairs)
        found = judges.calibrate(score, known["same"])
        kind, threshold = "encoder", found.threshold
        accuracy = intervals.Estimate(found.accuracy, found.low, found.high)
    else:
        with judges.PairClassifier(
            how.classifier,
            tokenizer=how.classifier_tokenizer,
            threshold=how.classifier_threshold,
            batch=how.judge_batch,
            device=device,
        ) as classifier:
            score = classifier.probabilities(pairs)
        kind, threshold = "classifier", how.classifier_threshold
        right = (score > threshold) == known["same"]
        accuracy = intervals.Estimate(float(right.mean()), *intervals.wilson(int(right.sum()), len(right)))
    known.assign(score=score).to_parquet(folder / "pairs.parquet", index=False)
    about = {"kind": kind, "threshold": float(threshold), "pairs": len(known), "accuracy": results.interval(accuracy)}
    (folder / judges.JUDGE.name).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
