"""The long runs at tiny size: a table a method, provenance, and resumption after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from accelerate.state import AcceleratorState

from calibnb import params, reference

ROOT = Path(__file__).parent.parent


@pytest.fixture
def study() -> params.Params:
    merged = params.merge(params.read(ROOT / "params.yaml"), params.read(ROOT / "profiles" / "test.yaml"))
    changed = params.merge(merged, {"models": ["./tiny"], "methods": ["hard"], "variants": ["base", "hard"]})
    return params.parse(changed, "test")


def test_a_long_run_is_measured_at_every_validation(
    study: params.Params, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AcceleratorState._reset_state(True)
    monkeypatch.chdir(tmp_path)
    weights = Path("models") / "tiny" / "weights"
    shutil.copytree(tiny_folder, weights)
    (weights / "card.json").write_text('{"name": "tiny"}')
    reference.run(study, Path("out"))
    AcceleratorState._reset_state(True)
    table = pd.read_csv("out/hard.csv")
    assert table["step"].nunique() == study.finetune["hard"].validations
    assert set(table["measure"]) == set(reference.MEASURES)
    assert set(table["split"]) == {"validation", "unseen", "held_out"}
    valid = table[table["measure"] == "valid_mass"]
    assert ((valid["low"] <= valid["value"]) & (valid["value"] <= valid["high"])).all()
    about = json.loads(Path("out/provenance.json").read_text())
    assert about["model"] == {"name": "tiny"}
    assert list(about["finetune"]) == ["hard"]
    assert sum(about["settings"].values()) > 0
