"""The script for a GPU machine: pieces of files that come back whole, and the headline from end to end at tiny size."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import METHODS, tables

from calibnb import yaml_files
from calibnb.benchmarks import registry
from calibnb.book import read
from calibnb.book.chapter import Chapter
from calibnb.errors import UserError
from calibnb.evidence import results, runs
from calibnb.pipeline import execute, keep, params
from calibnb.training.params import TRAINED, write_methods

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "speed" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu

    return gpu


@pytest.fixture
def cutting(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import pieces

    return pieces


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """What is cut: a folder and a file."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "below" / "a").write_bytes(bytes(range(256)) * 80)
    (tmp_path / "b").write_bytes(b"")
    return tmp_path


def parts(cutting: ModuleType, folder: Path, name: str, size: int = 5_000) -> list[Path]:
    pieces: list[Path] = cutting.cut({"in": folder / "in", "other/b": folder / "b"}, folder / name, size)
    return pieces


@given(st.binary(max_size=30_000), st.integers(1_000, 40_000))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_are_small_and_come_back_whole(cutting: ModuleType, held: Path, content: bytes, size: int) -> None:
    (held / "b").write_bytes(content)
    pieces = parts(cutting, held, "pieces", size)
    assert all(piece.stat().st_size == size for piece in pieces[:-1]) and 0 < pieces[-1].stat().st_size <= size
    assert {path.name for path in (held / "pieces").iterdir()} == {*(p.name for p in pieces), cutting.MANIFEST}
    assert cutting.missing(held / "pieces") == []
    cutting.put_together(held / "pieces", held / "out")
    assert (held / "out" / "other" / "b").read_bytes() == content
    assert (held / "out" / "in" / "below" / "a").read_bytes() == (held / "in" / "below" / "a").read_bytes()


def test_equal_files_are_equal_pieces(cutting: ModuleType, held: Path) -> None:
    first = parts(cutting, held, "pieces")
    os.utime(held / "b", (0, 0))
    again = parts(cutting, held, "again")
    assert len(first) > 4 and [p.read_bytes() for p in first] == [p.read_bytes() for p in again]


def joined(pieces: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "join", str(pieces), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_pieces_come_one_by_one_and_a_damaged_one_is_one_line(cutting: ModuleType, held: Path) -> None:
    *_, last = parts(cutting, held, "pieces")
    content = last.read_bytes()
    last.unlink()
    waiting = joined(held / "pieces", held / "out")
    assert waiting.returncode == 0 and waiting.stdout == f"{held / 'pieces'}: still to come: {last.name}\n"
    assert not (held / "out").exists()

    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused = joined(held / "pieces", held / "out")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith(f"{last}: damaged: sha256 must be ")
    assert not (held / "out").exists()

    last.write_bytes(content)
    assert joined(held / "pieces", held / "out").stdout.endswith("complete\n")
    (held / "pieces" / cutting.MANIFEST).unlink()
    unknown = f"{held / 'pieces' / cutting.MANIFEST}: must be there to know the pieces by\n"
    assert joined(held / "pieces", held / "out").stderr == unknown


def test_a_stage_is_that_of_the_pipeline(gpu: ModuleType, tmp_path: Path) -> None:
    _, study = gpu.study_of(ROOT / "profiles" / "gpu.yaml")
    one = gpu.stage("finetune", study, model="./tiny", method="soft", seed=29)
    notebook, page = "notebooks/models/finetune.ipynb", "book/executed/finetune/./tiny/soft/seed-29.ipynb"
    options = ["-p", "model", "./tiny", "-p", "method", "soft", "-p", "seed", "29"]
    assert one.command == [sys.executable, "-m", "calibnb.pipeline.execute", notebook, page, *options]
    results = Path("results/finetune/tiny/soft/seed-29")
    outs = {Path("variants/tiny/soft/seed-29"), Path(page), results.with_suffix(".json"), results.with_suffix(".csv")}
    assert set(one.outs) == outs and not one.done(tmp_path)
    assert gpu.stage("weights", study, model="m").command[-2:] == ["trust_remote_code", "False"]


def test_the_profile_takes_ten_times_the_steps_of_the_study(gpu: ModuleType) -> None:
    study = gpu.study_of(ROOT / "profiles" / "gpu.yaml")[1]
    usual = params.read(ROOT / "params.yaml")
    assert study.seeds == (11, 29, 47) and list(study.models) == usual["models"]
    for name in study.methods:
        assert study.finetune[name].epochs == pytest.approx(10 * usual["finetune"][name]["epochs"])
        assert study.finetune[name].prompts_per_step == usual["finetune"][name]["prompts_per_step"]


def test_a_run_of_an_unknown_benchmark_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert keep.main(["mine", "--folder", str(ROOT), "--only", "dice"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("--only: must be a benchmark (baselines, ") and said.endswith('), got "dice"\n')
    for name in ("params.yaml", "grids.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    assert keep.main(["mine", "--only", "structured"]) == 1
    assert "there is no results/findings/structured.json" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_tables_of_a_model_that_are_too_large_are_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, benchmark, folder = "qwen2.5-coder-0.5b", "openended", tmp_path / "study"
    tables(folder / "results", [model], ["base", "format", "soft"])
    for name in ("params.yaml", "grids.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    write_methods({name: METHODS[name] for name in ("format", "soft")}, folder / TRAINED)
    for name in (benchmark, "finetuning"):
        results.write_json([], folder / "results" / "findings" / f"{name}.json")
    (folder / "items" / "study").mkdir(parents=True)
    (folder / "items" / "study" / "settings.jsonl").touch()
    out = tmp_path / "runs" / "mine"
    keep.keep(folder, out, [benchmark])
    assert json.loads((out / "run.json").read_text())["provenance"].keys() == {
        "date", "device", "dtype", "packages", "python"
    }  # fmt: skip
    kept = sorted(path.relative_to(out) for path in out.rglob("*.parquet"))
    assert kept == [
        Path("results") / benchmark / model / variant / "categories.parquet" for variant in ("base", "format", "soft")
    ]
    size = sum((out / path).stat().st_size for path in kept)
    monkeypatch.setattr(keep, "LARGEST", size)
    keep.keep(folder, out, [benchmark])
    monkeypatch.setattr(keep, "LARGEST", size - 1)
    with pytest.raises(UserError, match=rf"mine: the tables of {model} take {size:,} bytes; allowed: {size - 1:,}"):
        keep.keep(folder, out, [benchmark])


def test_a_book_is_not_read_of_runs_of_some_benchmarks_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    about = json.loads((ROOT / "runs" / "small" / "run.json").read_text())
    results.write_json(about, tmp_path / "runs" / "part" / "run.json")
    with pytest.raises(UserError, match="runs: must hold a run of all benchmarks, got part"):
        read.build()


@pytest.fixture
def tiny_profile(tiny_folder: Path) -> Path:
    """One method with one seed, on the tiny model, which lies beside the profile."""
    changed = yaml_files.read(ROOT / "profiles" / "test.yaml") | {"methods": ["soft"], "variants": ["base", "soft"]}
    for block in changed["benchmarks"].values():
        if "variants" in block:
            block["variants"] = ["base", "soft"]
    path = tiny_folder.parent / "profile.yaml"
    path.write_text(yaml.safe_dump(changed))
    return path


@pytest.mark.slow
def test_the_headline_from_end_to_end(tiny_profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_profile.parent
    monkeypatch.chdir(ROOT)

    def script(*arguments: str) -> str:
        command = [sys.executable, str(SCRIPT), *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    profile = ["--profile", "profile.yaml"]
    script("split", *profile, "--no-wheels", "--mebibytes", "0.05", "--out", "pieces")
    assert len(list((folder / "pieces").glob("piece-*"))) == 2
    script("join", "pieces", "study")
    small = ["--largest", "256", "--prompts", "4", "8", "--name", "tiny", "--jobs", "2"]
    said = script("run", "study", "--out", "out", *profile, *small)
    assert "seeds measured: 11" in said

    # Without time for training, and with all that is there, no stage runs again; the run is kept anew.
    none = ["--minutes", "4", "--reserve", "4"]
    again = script("run", "study", "--out", "out", *profile, *small, *none)
    assert [line.split(":")[0] for line in again.splitlines() if "done after" in line] == ["keep"]
    script("join", "out", "back")
    kept = folder / "back" / "runs" / "tiny"
    speed = json.loads((kept / "speed.json").read_text())
    assert {"rate", "finetune-./tiny-soft-11", "measure-structured-./tiny-soft"} < set(speed["stage_seconds"])
    assert [row["prompts"] for row in speed["rates"]["training_steps"]] == [4, 8]
    for row in (speed["rates"]["exact_evaluation"], *speed["rates"]["training_steps"]):
        assert (
            row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"]) and 0 < row["share_of_rate"] < 1
        )
    (run,) = runs.committed(folder / "back" / "runs")
    assert run.lists == {"structured": ["base", "soft"], "methods": ["soft"]} and list(run.seeds) == [11]
    assert Chapter(registry.benchmarks()["structured"], [run]).labels == ["./tiny (tiny)"]
    laws = pd.read_parquet(kept / "results" / "structured" / "tiny" / "soft" / "settings.parquet")
    assert set(laws["seed"]) == {11}
    for page in ("introduction", "findings"):  # they show a run of one benchmark, too
        notebook, out = f"notebooks/chapters/{page}.ipynb", str(folder / f"{page}.ipynb")
        options = ["-p", "own", "false", "-p", "runs_folder", str(folder / "back" / "runs")]
        assert execute.main([notebook, out, *options]) == 0
