"""What a study computes, as a page shows it: floating-point operations by kind of stage."""

from __future__ import annotations

import json

import pandas as pd

from calibnb.benchmarks import registry
from calibnb.evidence.runs import Run
from calibnb.models.places import place
from calibnb.yaml_files import read

TRAINING = "Fine-tuning"


def by_kind(run: Run) -> pd.DataFrame:
    """A row a model and kind of stage, the largest of a model first.

    Returns
    -------
    DataFrame
        ``run, model, kind, tflop, budget``: what pages call the model, training or the title of a benchmark or what is
        prepared, operations in 10^12, and how many the whole run was meant to take (nan for none).

    Raises
    ------
    FileNotFoundError, KeyError
        For a run that lacks results, or has them from a time when nothing was counted.
    """
    asked = read(run.root.parent / "params.yaml")["budget_tflop"]
    benchmarks = registry.benchmarks()
    rows = []
    for model in run.models:
        training = run.folder("finetune", model)
        files = {
            TRAINING: [
                training / method / f"seed-{seed}.json" for method in run.lists["methods"] for seed in run.seeds
            ],
            "Fitting a temperature": [run.root / "temperature" / f"{place(model)}.json"],
            "Ordinary answers": [run.root / "ordinary" / f"{place(model)}.json"],
        }
        for name, benchmark in benchmarks.items():
            files[benchmark.title] = [run.folder(name, model) / f"{variant}.json" for variant in run.lists[name]]
        for kind, paths in files.items():
            tflop = sum(json.loads(path.read_text(encoding="utf-8"))["tflop"] for path in paths)
            if tflop:  # what the study did not need took nothing
                rows.append({"run": run.name, "model": run.label(model), "kind": kind, "tflop": tflop})
    frame = pd.DataFrame(rows).assign(budget=float("nan") if asked is None else float(asked))
    order = frame["model"].map({run.label(model): i for i, model in enumerate(run.models)})
    return frame.assign(order=order).sort_values(["order", "tflop"], ascending=[True, False]).drop(columns="order")


def sentence(frame: pd.DataFrame) -> str:
    """What one run took in all, how much of it training, and how that stands to its budget.

    Parameters
    ----------
    frame : DataFrame
        The rows of :func:`by_kind`.
    """
    total = frame["tflop"].sum()
    share = frame.loc[frame["kind"] == TRAINING, "tflop"].sum() / total
    models = ", ".join(f"`{model}`" for model in frame["model"].unique())
    said = f"{models}: {shown(total)} TFLOP in all, of which training takes {share:.0%}."
    budget = frame["budget"].iloc[0]
    if pd.isna(budget):
        return said
    return f"{said} The budget of {budget:g} TFLOP is {'kept' if total <= budget else 'exceeded'}."


def shown(tflop: float) -> str:
    """A number of operations with three digits, or whole from a thousand on."""
    return f"{tflop:,.0f}" if tflop >= 1000 else f"{tflop:.3g}"
