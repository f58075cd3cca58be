"""The long runs at tiny size: a curve a method and where it comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from accelerate.state import AcceleratorState

from calibnb import yaml_files
from calibnb.benchmarks import registry
from calibnb.pipeline import params, reference
from calibnb.training import checkpoints

ROOT = Path(__file__).parent.parent


@pytest.fixture
def study() -> params.Params:
    merged = params.merge(params.read(ROOT / "params.yaml"), yaml_files.read(ROOT / "profiles" / "test.yaml"))
    change = {"methods": ["hard"], "variants": ["base", "hard"]}
    change["benchmarks"] = {
        name: {"variants": "all" if name == "structured" else ["base"]} for name in registry.blocks()
    }
    changed = params.merge(merged, {"models": ["./tiny"]} | change)
    return params.parse(changed, "test")


def test_a_long_run_is_measured_before_it_and_at_every_validation(
    study: params.Params, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AcceleratorState._reset_state(True)
    monkeypatch.chdir(tmp_path)
    weights = Path("models") / "tiny" / "weights"
    shutil.copytree(tiny_folder, weights)
    (weights / "card.json").write_text('{"name": "tiny"}')
    reference.run(study, "hard", Path("out"))
    AcceleratorState._reset_state(True)
    table = pd.read_csv("out/hard.csv")
    assert table["step"].min() == 0
    assert table["step"].nunique() == 1 + study.finetune["hard"].validations
    assert set(table["measure"]) == set(reference.MEASURES)
    assert set(table["split"]) == {"validation", "unseen", "held_out"}
    valid = table[table["measure"] == "valid_mass"]
    assert ((valid["low"] <= valid["value"]) & (valid["value"] <= valid["high"])).all()
    about = json.loads(Path("out/hard.json").read_text())
    assert about["model"] == {"name": "tiny"}
    assert about["finetune"] == study.finetune["hard"].model_dump(mode="json")
    assert sum(about["settings"].values()) > 0

    # A run of other settings that is left behind a checkpoint is not continued, in the table either.
    scratch = Path(".scratch") / "reference" / "hard"
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "checkpoint.pt").touch()
    other = study.model_copy(
        update={"finetune": {"hard": study.finetune["hard"].model_copy(update={"validations": 1})}}
    )
    monkeypatch.setattr(checkpoints.Checkpoint, "resume", lambda self, device: checkpoints.Progress())
    reference.run(other, "hard", Path("out"))
    AcceleratorState._reset_state(True)
    assert pd.read_csv("out/hard.csv")["step"].nunique() == 2


def test_an_unknown_method_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["reference", "medium"])
    assert reference.main() == 1
    assert capsys.readouterr().err == "medium: no such method; profiles/reference.yaml has soft, hard\n"
