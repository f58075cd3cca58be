"""What became of claims, run by run, and how pages show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML

from calibnb.book import page, tables
from calibnb.book.figures.judged import VERDICTS
from calibnb.evidence import claims, results
from calibnb.evidence.runs import Run
from calibnb.models.places import place

Frame = pd.DataFrame
FINDINGS = Path("results/findings")
ALL = "findings.json"  # of all chapters
FINDING = ("id", "question", "claim", "value", "low", "high", "unit", "source", "verdict", "model")


def judged(name: str, chapters: Sequence[claims.Chapter], shown: Sequence[Run]) -> Frame:
    """Findings of every run; those of the reader's own are written to ``results/findings/<name>.json``."""
    rows = []
    for run in shown:
        found = claims.evaluate(chapters, run)
        if not run.name:
            results.write_json(found, FINDINGS / f"{name}.json")
        rows += [finding | {"model": run.label(_of_model(str(finding["id"]), run.models)[1])} for finding in found]
    return pd.DataFrame(rows, columns=list(FINDING))


def verdicts(found: Frame, model: str, finding: str, variants: Sequence[str]) -> dict[str, str]:
    """Verdicts among findings on a claim by variant: see :meth:`calibnb.book.chapter.Chapter.verdicts`."""
    return {variant: str(row["verdict"]) for variant, row in by_variant(found, model, finding, variants).items()}


def by_variant(found: Frame, model: str, finding: str, variants: Sequence[str]) -> dict[str, dict[Any, Any]]:
    """Findings of a model whose ids differ in the variant alone."""
    here = found[found["model"] == model]
    known = {row["id"].partition("@")[0]: row for row in here.to_dict("records")}
    ids = {variant: finding.format(variant=variant) for variant in variants}
    return {variant: known[name] for variant, name in ids.items() if name in known}


def _of_model(finding: str, models: Sequence[str]) -> tuple[str, str]:
    """The id of a finding without the end that names a further model, and the model."""
    plain, _, further = finding.partition("@")
    return plain, {place(model): model for model in models}[further] if further else models[0]


def claims_table(found: Frame) -> HTML:
    """The claims among findings with their verdicts, values and intervals."""
    claimed = found[found["claim"] != ""] if len(found) else found
    if claimed.empty:
        return HTML("<p>No claim rests on this page.</p>")  # type: ignore[no-untyped-call]
    number = ["value", "low", "high"]
    values = claimed[number].astype(float).itertuples(index=False)
    shown = claimed.assign(**{"value [95 %]": [tables.with_interval(*row) for row in values]})
    columns = [*(["model"] if claimed["model"].nunique() > 1 else []), "verdict", "claim", "value [95 %]", "unit"]
    return HTML(shown[columns].to_html(index=False, border=0, classes="claims"))  # type: ignore[no-untyped-call]


def claims_fold(found: Frame) -> HTML:
    """The claims among findings in a fold whose title counts their verdicts."""
    counts = found["verdict"][found["claim"] != ""].value_counts().to_dict()
    order = [name for name in (*VERDICTS, *counts) if name in counts]
    title = ", ".join(f"{counts[name]} {name}" for name in dict.fromkeys(order)) or "none"
    meaning = '<p><a href="findings.html">Findings</a> says what the verdicts mean.</p>'
    return page.fold(f"Claims: {title}", meaning, claims_table(found))


def of_models(
    models: Sequence[str], committed: Sequence[Run]
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[str]]:
    """Findings by what pages call a model, then by their ids without the end that names a further model.

    And a line for every committed run that has none.

    Parameters
    ----------
    models : Sequence[str]
        Models of the reader's own run; none where there is none.
    committed : Sequence[Run]
        Further runs.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    present = [run for run in committed if (run.root / ALL).is_file()]
    for root, names, run in [
        *([(Path("results"), models, "")] if models else []),
        *((run.root, run.models, run.name) for run in present),
    ]:
        for row in json.loads((root / ALL).read_text(encoding="utf-8")):
            plain, model = _of_model(row["id"], names)
            found.setdefault(f"{model} ({run})" if run else model, {})[plain] = row
    return found, [f"The run {run.name} has no findings." for run in committed if run not in present]


def read(names: Sequence[str]) -> list[dict[str, Any]]:
    """The findings that chapters have written, in the order of `names`."""
    return [
        finding for name in names for finding in json.loads((FINDINGS / f"{name}.json").read_text(encoding="utf-8"))
    ]
