"""What no variant answers: read off all benchmarks, and told apart by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up import METHODS, VARIANTS, tables

from calibnb.benchmarks import registry
from calibnb.book import unanswered
from calibnb.evidence.runs import Run

LISTS = dict.fromkeys(registry.blocks(), tuple(VARIANTS)) | {"methods": tuple(VARIANTS[1:])}
OWN = Run(Path("results"), ["tiny", "other"], [11], LISTS, {name: METHODS[name] for name in VARIANTS[1:]}, 20)


def test_kinds_that_all_variants_hardly_answer() -> None:
    rows = [
        ("m", "a", "base", 0.05), ("m", "a", "soft", 0.0999),
        ("m", "b", "base", 0.0), ("m", "b", "soft", 0.1),
        ("m", "c", "base", float("nan")), ("m", "c", "soft", 0.2),
        ("n", "a", "base", 0.9), ("n", "a", "soft", 0.0),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["model", "kind", "variant", "value"])
    assert unanswered.silent(frame) == {"m": ["a"], "n": []}


def test_kinds_of_a_benchmark_are_named_together() -> None:
    assert unanswered.named(["A: x", "B", "A: y"]) == "A (x, y) and B"
    assert unanswered.named(["B"]) == "B"


def test_tasks_in_which_no_variant_is_better_than_guessing() -> None:
    rows = [
        ("m", "facts", "base", 0.25), ("m", "facts", "soft", 0.1),  # four choices
        ("m", "sorting", "base", 0.26), ("m", "sorting", "soft", 0.1),
        ("m", "copying", "base", 0.0), ("m", "copying", "soft", 0.0),  # written: guessing gets nothing
        ("m", "tinyMMLU", "base", 0.0), ("m", "all tasks", "base", 0.0),
        ("n", "copying", "base", 0.01),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["model", "task", "variant", "low"])
    assert unanswered.guessed(frame) == {"m": ["facts", "copying"], "n": []}


def test_every_benchmark_of_randomness_has_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tables(OWN.root, OWN.models, VARIANTS, seed=1)
    older = replace(OWN, root=Path("runs/older/results"), models=["tiny"], name="older")
    tables(older.root, older.models, VARIANTS, seed=2)
    (older.root / "mixing/tiny/soft/items.parquet").unlink()
    found, notes = unanswered.shares([OWN, older])
    assert len(notes) == 1 and notes[0].startswith("The run older has no tables")
    assert set(found["page"]) == set(registry.benchmarks()) - {"capability", "perplexity", "novelty"}
    assert set(found["model"]) == {"tiny", "other", "tiny (older)"}
    assert "The mixing curve" in set(found["kind"]) - set(found["kind"][found["model"] == "tiny (older)"])
    assert {"in range", "held-out families"} <= {kind.rpartition(": ")[2] for kind in found["kind"]}
    one = found[(found["model"] == "tiny") & (found["variant"] == "soft") & (found["page"] == "openended")]
    table = pd.read_parquet(OWN.root / "openended/tiny/soft/categories.parquet")
    assert one["value"].tolist() == pytest.approx([table["member_mass"].mean()])
    assert not found[["model", "kind", "variant"]].duplicated().any()
