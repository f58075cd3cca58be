"""Training runs as pages show them: the loss step by step, and what a run was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from calibnb.evidence.runs import Run


def _records(run: Run) -> list[tuple[dict[str, Any], Path]]:
    """Who each training run of a study is, and its record without the ending."""
    return [
        (
            {"model": run.label(model), "method": method, "seed": seed},
            run.folder("finetune", model) / method / f"seed-{seed}",
        )
        for model in run.models
        for method in run.lists["methods"]
        for seed in run.seeds
    ]


def runs(run: Run) -> pd.DataFrame:
    """A row a training run: ``model, method, seed``, its counts and losses, and ``step``: the file of what one saw."""
    rows = [
        who | json.loads(record.with_suffix(".json").read_text()) | {"step": f"{record}-step.json"}
        for who, record in _records(run)
    ]
    return pd.DataFrame(rows)


def logs(run: Run) -> pd.DataFrame:
    """A row a step: ``model, method, seed, step, prompts, loss, validation`` and what else a log has."""
    parts: list[pd.DataFrame] = [pd.read_csv(record.with_suffix(".csv")).assign(**who) for who, record in _records(run)]
    return pd.concat(parts, ignore_index=True)
