"""The pipeline: does dvc.yaml say what the notebooks do, and does it run end to end on a tiny model?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import digit_chat_tokenizer, tiny_model
from notebook_code import ROOT, code_of, parameters

from calibnb import yaml_files
from calibnb.book import building
from calibnb.pipeline import params, profiles

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
NOTEBOOKS = {
    name: ROOT / found[0]
    for name, stage in STAGES.items()
    if (found := re.findall(r"calibnb\.pipeline\.execute\s+(\S+\.ipynb)", stage["cmd"]))
}


# --------------------------------------------------------------------------------- dvc.yaml and notebooks


def test_every_stage_says_what_it_is_for_and_every_notebook_is_a_stage() -> None:
    assert [name for name, stage in STAGES.items() if not stage["desc"].endswith(".")] == []
    assert sorted(NOTEBOOKS.values()) == sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", [name for name in STAGES if name != "code"])
def test_a_stage_depends_on_what_it_runs(name: str) -> None:
    ran = NOTEBOOKS[name].stem if name in NOTEBOOKS else name
    assert [dep for dep in STAGES[name]["deps"] if dep.startswith((".code/", "calibnb/"))] == [f".code/{ran}.json"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_stage_names_the_parameters_that_its_notebook_reads(name: str) -> None:
    declared = {key.split(".")[0] for key in STAGES[name].get("params", [])}
    assert declared == parameters(code_of(NOTEBOOKS[name]))


def test_parameters_of_code() -> None:
    code = "study = parameters.load(p, data=D, finetune=F)\nx = study.data.a\nother.seeds\nstudy.finetune[m]"
    assert parameters(code) == {"data", "finetune"}
    with pytest.raises(AssertionError, match="loaded"):
        parameters(code.replace(", finetune=F", ""))


# ------------------------------------------------------------------------------- a clean clone, tiny model


class Clone:
    """A fresh clone of the project with the test profile, and what its commands print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def ok(self, *command: str) -> str:
        run = self.run(*command)
        assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
        return run.stdout

    def commit(self) -> None:
        self.ok("git", "add", "--all")
        self.ok("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "x")

    def ran(self, *command: str) -> set[str]:
        """The stages that a command ran."""
        return set(re.findall(r"^Running stage '(.*)':$", self.ok(*command), re.MULTILINE))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """What `git clone` would give of the files as they are now, run once."""
    folder = tmp_path_factory.mktemp("clone")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    merged = params.merge(yaml_files.read(ROOT / "params.yaml"), yaml_files.read(ROOT / "profiles/test.yaml"))
    (folder / "params.yaml").write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    tokenizer = digit_chat_tokenizer()
    tiny_model("llama", len(tokenizer)).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")

    clone = Clone(folder)
    clone.ok("git", "init", "--quiet")
    clone.commit()
    clone.ok(sys.executable, "-m", "calibnb.pipeline", "--jobs", "2")
    clone.commit()
    return clone


def expected_stages() -> set[str]:
    """Every stage of the test profile."""
    study = params.merge(yaml_files.read(ROOT / "params.yaml"), yaml_files.read(ROOT / "profiles/test.yaml"))
    runs = {f"{m}-{seed}" for m in study["methods"] for seed in study["seeds"]}
    once = {name: [""] for name in ("weights", "temperature", "ordinary")}
    loaded = params.parse(study)
    matrix = once | {"finetune": runs} | {name: measured(loaded) for name, (_, measured) in building.BENCHMARKS.items()}
    return {
        f"{name}@./tiny-{item}".rstrip("-") if name in matrix else name
        for name in STAGES
        for item in matrix.get(name, [""])
    }


def test_everything_ran_and_nothing_runs_twice(clone: Clone) -> None:
    lock = yaml.safe_load((clone.folder / "dvc.lock").read_text())
    assert expected_stages() <= set(lock["stages"])
    assert clone.ran("dvc", "repro") == {"code"}
    # What is committed and what is not
    assert clone.ok("git", "status", "--porcelain") == ""
    tracked = clone.ok("git", "ls-files").split()
    assert "results/findings.json" in tracked
    assert "results/structured/tiny/base.json" in tracked
    assert not [name for name in tracked if name.startswith(("models/", "variants/", "book/_build/"))]
    assert not [name for name in tracked if name.endswith(".parquet")]


def test_the_book_reads_without_a_network(clone: Clone) -> None:
    html = clone.folder / "book" / "_build" / "html"
    assert (html / "index.html").is_file()
    assert (html / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert list(building.problems(html)) == []
    assert list(html.rglob("*.woff2"))
    pictures = sum(page.read_text().count("<img") for page in html.rglob("*.html"))
    assert pictures > len(list((clone.folder / "book" / "executed").glob("*.ipynb")))


def test_findings_are_whole(clone: Clone) -> None:
    findings = json.loads((clone.folder / "results/findings.json").read_text())
    keys = {"id", "question", "claim", "value", "low", "high", "unit", "source", "verdict"}
    assert [f for f in findings if set(f) != keys] == []
    ids = [f["id"] for f in findings]
    assert len(set(ids)) == len(ids)
    for split in ("unseen", "held_out"):
        for variant in ("base", "format", "soft", "hard"):
            for measure in ("nw1", "valid_mass", "kl_format", "kl_shape"):
                assert f"structured.{split}.{variant}.{measure}" in ids
        for variant in ("soft", "hard"):
            assert f"structured.{split}.{variant}.w1_vs_format" in ids
    assert {f"openended.{v}.unique_fraction_folded" for v in ("base", "format", "soft", "hard")} <= set(ids)
    assert {"openended.soft.unique_vs_format", "novelty.soft.distinct_vs_format", "positions.soft.parse"} <= set(ids)
    assert {"language.implicit.soft.error_vs_format", "language.paraphrases.base.nw1"} <= set(ids)
    assert {"capability.soft.vs_base", "perplexity.mixed.vs_base", "tradeoff.mixed.capability"} <= set(ids)
    assert {"structured.unseen.mixed.w1_vs_format", "tradeoff.mixed.held_out.w1"} <= set(ids)
    assert {"baselines.structured.ssot.valid_mass", "baselines.positions.verbalised.parsed"} <= set(ids)


def test_dvc_shows_the_results(clone: Clone) -> None:
    shown = json.loads(clone.ok("dvc", "metrics", "show", "--json"))
    paths = {path for revision in shown.values() for path in revision["data"]}
    assert "results/structured/tiny/soft.json" in paths
    assert "results/finetune/tiny/soft/seed-11.json" in paths
    assert "structured@./tiny-base" in clone.ok("dvc", "dag")
    clone.ok("dvc", "plots", "show", "--out", str(clone.folder.parent / "plots"))


def test_equal_results_are_equal_bytes(clone: Clone) -> None:
    before = (clone.folder / "dvc.lock").read_bytes()
    stages = ["finetune@./tiny-soft-11", "structured@./tiny-soft", "structured_comparison"]
    for stage in stages:
        assert clone.ran("dvc", "repro", "--force", "--single-item", stage) == {stage}
    assert (clone.folder / "dvc.lock").read_bytes() == before


def test_a_parameter_of_one_method_runs_what_depends_on_it(clone: Clone) -> None:
    ran = clone.ran("dvc", "exp", "run", "-S", "finetune.soft.learning_rate=0.003")
    assert {"finetune@./tiny-soft-11", "structured@./tiny-soft", "findings", "book"} <= ran
    others = {name for name in expected_stages() if "@" in name and "soft" not in name}
    assert ran & (others | {"data", "method", "learning_curves"}) == set()
    changed = json.loads(clone.ok("dvc", "metrics", "diff", "--json"))
    assert "results/structured/tiny/soft.json" in changed
    measured = {f"results/{benchmark}/tiny/soft.json" for benchmark in building.BENCHMARKS}
    measured |= {"results/finetune/tiny/soft/seed-11.json"}
    assert set(changed) <= measured


@pytest.fixture
def altered(clone: Clone) -> Iterator[Callable[[str, str, str], None]]:
    """Replace a text in a file of the clone; the files are as they were afterwards."""
    before: dict[Path, str] = {}

    def replace(name: str, old: str, new: str) -> None:
        path = clone.folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        before.setdefault(path, text)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    yield replace
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")
    clone.ok(sys.executable, "-m", "calibnb.pipeline.dependence")


def stale(clone: Clone) -> set[str]:
    """The stages that DVC would run because of what they depend on themselves, `code` aside."""
    clone.ok(sys.executable, "-m", "calibnb.pipeline.dependence")
    return set(json.loads(clone.ok("dvc", "status", "--json"))) - {"code"}


def test_comments_docstrings_tests_and_prose_run_the_book_alone(
    clone: Clone, altered: Callable[[str, str, str], None]
) -> None:
    assert stale(clone) == set()
    altered("calibnb/trees/trie.py", "import annotations\n", "import annotations\n\n# A comment.\n")
    altered("calibnb/benchmarks/structured/measures.py", '"""', '"""Said otherwise. ')
    altered("notebooks/structured.ipynb", "# Structured sampling of one variant", "# One variant")
    altered("tests/conftest.py", '"""', '"""Said otherwise. ')
    altered("README.md", "# calibnb", "# calibnb, a study")
    assert stale(clone) == set()
    altered("book/pages/executed.md", "# ", "# All ")
    assert stale(clone) == {"book"}


def test_a_picture_runs_its_chapter(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    altered("notebooks/openended_comparison.ipynb", "Four panels", "Panels")
    assert stale(clone) == {"openended_comparison"}


def test_code_runs_what_imports_it(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    altered("calibnb/benchmarks/perplexity/scoring.py", "batch_tokens: int = 4096", "batch_tokens: int = 2048")
    measured = {f"perplexity@./tiny-{variant}" for variant in params.load(clone.folder / "params.yaml").retention}
    assert stale(clone) == measured


def test_a_key_of_one_benchmark_runs_that_benchmark(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    study = params.load(clone.folder / "params.yaml")
    altered("params.yaml", f"draws: {study.openended.draws}\n  max_new_tokens: {study.openended.max_new_tokens}",
            f"draws: 2\n  max_new_tokens: {study.openended.max_new_tokens}")  # fmt: skip
    # The check reads the whole file; what it leaves stays as it is.
    assert stale(clone) == {"check"} | {f"openended@./tiny-{variant}" for variant in study.variants}


def test_a_wrong_parameter_is_one_line_and_nothing_is_lost(clone: Clone) -> None:
    path = clone.folder / "params.yaml"
    right = path.read_text()
    made = sorted((clone.folder / "variants").rglob("*"))
    try:
        path.write_text(right.replace("models:", "modles: []\nmodels:", 1))
        run = clone.run("dvc", "repro")
        assert run.returncode != 0
        assert "Traceback" not in run.stdout + run.stderr
        assert re.search(r"^params\.yaml: modles: .*$", run.stderr, re.MULTILINE)
        assert re.findall(r"^Running stage '(.*)':$", run.stdout, re.MULTILINE) == ["code", "check"]
    finally:
        path.write_text(right)
    assert sorted((clone.folder / "variants").rglob("*")) == made


def test_a_wrong_pipeline_is_one_line(clone: Clone) -> None:
    path = clone.folder / "dvc.yaml"
    right = path.read_text()
    try:
        path.write_text(right.replace("${models}", "${modles}", 1))
        run = clone.run(sys.executable, "-m", "calibnb.pipeline", "--jobs", "2")
    finally:
        path.write_text(right)
    assert run.returncode == 1
    assert re.fullmatch(r"dvc: .*'dvc\.yaml': Could not find 'modles'\n", run.stderr)


def test_a_profile_runs_in_a_folder_of_its_own(clone: Clone, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("finetune: {soft: {learning_rate: 0.003}}\n")
    before = clone.ok("git", "status", "--porcelain")
    clone.ok(sys.executable, "-m", "calibnb.pipeline.profiles", str(profile), ".demo", "--prepare")
    demo_folder = Clone(clone.folder / ".demo")
    assert clone.ok("git", "status", "--porcelain") == before
    assert params.load(demo_folder.folder / "params.yaml").finetune["soft"].learning_rate == 0.003
    assert not (demo_folder.folder / "results" / "findings.json").exists()
    assert (demo_folder.folder / "results" / "reference").is_dir()
    assert demo_folder.ok("dvc", "cache", "dir") == clone.ok("dvc", "cache", "dir")

    # A file that the project no longer has goes, what the folder has computed stays.
    (demo_folder.folder / "notebooks" / "old.ipynb").write_text("{}")
    (demo_folder.folder / "models").mkdir()
    (demo_folder.folder / "models" / "made").write_text("x")
    clone.ok(sys.executable, "-m", "calibnb.pipeline.profiles", str(profile), ".demo", "--prepare")
    assert not (demo_folder.folder / "notebooks" / "old.ipynb").exists()
    assert (demo_folder.folder / "models" / "made").exists()

    # So it does in a folder called book, and in one inside the project that git does not ignore.
    for folder in (tmp_path / "book", clone.folder / "mine"):
        for _ in range(3):
            clone.ok(sys.executable, "-m", "calibnb.pipeline.profiles", str(profile), str(folder), "--prepare")
            (folder / "models").mkdir(exist_ok=True)
        assert (folder / "book" / "_config.yml").exists() and not (folder / "mine").exists()
    shutil.rmtree(clone.folder / "mine")


def test_a_wrong_profile_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("finetune: {soft: {learning_rate: -1}}\n")
    assert profiles.main([str(profile), str(tmp_path / "folder")]) == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"{profile}: finetune.soft.learning_rate: ")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "folder").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = ROOT / "profiles" / "test.yaml"
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    assert profiles.main([str(profile), str(tmp_path), "--prepare"]) == 1
    assert profiles.main([str(profile), str(mine), "--prepare"]) == 1
    assert "must be a new or empty folder, or one that this command has made" in capsys.readouterr().err
    assert mine.read_text() == "mine"
