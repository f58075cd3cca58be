"""The pipeline: does dvc.yaml say what the notebooks do, and does it run end to end on a tiny model?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import digit_chat_tokenizer, tiny_model
from notebook_code import ROOT, code_of, parameters

from calibnb import yaml_files
from calibnb.book import building
from calibnb.pipeline import params, profiles

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
STUDY = params.read(ROOT / "params.yaml")


def notebooks_of(stage: dict[str, Any]) -> dict[str, Path]:
    """The notebooks that a stage runs, by the name that it has in its matrix; one of its own is called by nothing."""
    written = re.search(r"notebooks/(\S+)\.ipynb", stage["cmd"])
    prepared = re.search(r"pipeline\.needed (\w+)", stage["cmd"])
    pattern = written[1] if written else f"models/{prepared[1]}" if prepared else None
    if "pipeline.measure" in stage["cmd"]:
        pattern = "measure/${item.benchmark}"
    if pattern is None:
        return {}
    for key, names in (("benchmark", list(STUDY["benchmarks"])), ("name", stage.get("matrix", {}).get("name", []))):
        if f"${{item.{key}}}" in pattern:
            return {name: ROOT / "notebooks" / f"{pattern.replace(f'${{item.{key}}}', name)}.ipynb" for name in names}
    return {"": ROOT / "notebooks" / f"{pattern}.ipynb"}


OVERVIEW = [f"overview@{name}" for name in STAGES["overview"]["matrix"]["name"]]
NOTEBOOKS = {name: found for name, stage in STAGES.items() if (found := notebooks_of(stage))}


# --------------------------------------------------------------------------------- dvc.yaml and notebooks


def test_every_stage_says_what_it_is_for_and_every_notebook_is_a_stage() -> None:
    assert [name for name, stage in STAGES.items() if not stage["desc"].endswith(".")] == []
    ran = [path for found in NOTEBOOKS.values() for path in found.values()]
    assert sorted(ran) == sorted((ROOT / "notebooks").glob("*/*.ipynb"))


def test_the_pipeline_is_short() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 300
    assert "calibnb/" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")  # dependence on code is derived


@pytest.mark.parametrize("name", [name for name in STAGES if name != "code"])
def test_a_stage_depends_on_what_it_runs(name: str) -> None:
    if name in NOTEBOOKS:
        first = next(iter(NOTEBOOKS[name]))
        path = NOTEBOOKS[name][first].relative_to(ROOT / "notebooks").with_suffix("")
    else:
        first, path = "", Path(name)
    deps = [dep.replace("${item.benchmark}", first).replace("${item.name}", first) for dep in STAGES[name]["deps"]]
    runs, code = ".code/runs.json", [dep for dep in deps if dep.startswith(".code/") and "/sources/" not in dep]
    assert [dep for dep in code if dep != runs] == [f".code/{path}.json"]
    of_runs = {"runs_folder = " in code_of(notebook) for notebook in NOTEBOOKS.get(name, {}).values()} or {False}
    assert of_runs == {runs in code}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_stage_names_the_parameters_that_its_notebook_reads(name: str) -> None:
    read, several = set(), "name" in STAGES[name].get("matrix", {})
    for item, notebook in NOTEBOOKS[name].items():
        declared = {key.replace("${item.benchmark}", item) for key in STAGES[name].get("params", [])}
        declared = {re.sub(r"^finetune\..*", "finetune", key) for key in declared}
        own = parameters(code_of(notebook))
        read |= own
        assert own <= declared if several else own == declared
    if several:
        assert read == declared


def test_parameters_of_code() -> None:
    code = "study = parameters.load(p, data=D, finetune=F, benchmarks={'a': A})\nx = study.data.a\nstudy.finetune[m]"
    code += "\nstudy.benchmarks.a\nother.seeds"
    assert parameters(code) == {"data", "finetune", "benchmarks.a"}
    assert parameters(code.replace("study.finetune[m]", "f(study)")) == {"data", "finetune", "benchmarks.a"}
    with pytest.raises(AssertionError, match="loaded"):
        parameters(code.replace(", finetune=F", ""))
    with pytest.raises(AssertionError, match="loaded"):
        parameters(code.replace("study.finetune[m]", ""))


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


def cloned(folder: Path, profile: dict[str, Any]) -> Clone:
    """What `git clone` would give of the files as they are now, with a tiny model and the profile laid over."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    merged = params.merge(params.merge(STUDY, yaml_files.read(ROOT / "profiles/test.yaml")), profile)
    params.write(merged, folder)
    tokenizer = digit_chat_tokenizer()
    tiny_model("llama", len(tokenizer)).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    clone = Clone(folder)
    clone.ok("git", "init", "--quiet")
    clone.commit()
    return clone


def test_one_benchmark_from_end_to_end(tmp_path: Path) -> None:
    """Weights, training, measuring and a chapter, on a model so small that it takes a minute."""
    few = {"variants": ["base", "hard"]}
    profile: dict[str, Any] = {"methods": ["hard"], **few, "benchmarks": dict.fromkeys(STUDY["benchmarks"], few)}
    clone = cloned(tmp_path, profile)
    clone.ok(sys.executable, "-m", "calibnb.pipeline", "--jobs", "2", "chapter@perplexity")
    for variant in few["variants"]:
        assert (tmp_path / f"results/perplexity/tiny/{variant}/documents.parquet").is_file()
    found = json.loads((tmp_path / "results/findings/perplexity.json").read_text())
    assert [row["id"] for row in found] == [
        "perplexity.base.bits_per_byte",
        "perplexity.hard.bits_per_byte",
        "perplexity.hard.vs_base",
    ]
    assert "<table" in (tmp_path / "book/executed/perplexity.ipynb").read_text()
    assert not (tmp_path / "results/openended/tiny").exists()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone whose whole pipeline has run once."""
    clone = cloned(tmp_path_factory.mktemp("clone"), {})
    clone.ok(sys.executable, "-m", "calibnb.pipeline", "--jobs", "2")
    clone.commit()
    return clone


def expected_stages() -> set[str]:
    """Every stage of the test profile."""
    study = params.merge(STUDY, yaml_files.read(ROOT / "profiles/test.yaml"))
    tiny = "./tiny"
    matrix = {
        **{name: [tiny] for name in ("weights", "temperature", "ordinary")},
        "finetune": [f"{tiny}-{method}-{seed}" for method in study["methods"] for seed in study["seeds"]],
        "measure": [f"{name}-{tiny}-{variant}" for name in study["benchmarks"] for variant in study["variants"]],
        "chapter": list(study["benchmarks"]),
        **{name: STAGES[name]["matrix"]["name"] for name in ("overview", "page", "ground")},
    }
    return {f"{name}@{item}" if item else name for name in STAGES for item in matrix.get(name, [""])}


@pytest.mark.slow
def test_everything_ran_and_nothing_runs_twice(clone: Clone) -> None:
    lock = yaml.safe_load((clone.folder / "dvc.lock").read_text())
    assert expected_stages() <= set(lock["stages"])
    lines = (clone.folder / "dvc.lock").read_text().splitlines()
    assert len(lines) <= 80 * len(lock["stages"])  # of the study's 61 stages, 5,000
    assert clone.ran("dvc", "repro") == set()
    # What is committed and what is not
    assert clone.ok("git", "status", "--porcelain") == ""
    tracked = clone.ok("git", "ls-files").split()
    assert "results/findings.json" in tracked
    assert "results/structured/tiny/base.json" in tracked
    assert not [name for name in tracked if name.startswith(("models/", "variants/", "book/_build/"))]
    assert not [name for name in tracked if name.endswith(".parquet") and not name.startswith("runs/")]


@pytest.mark.slow
def test_the_book_reads_without_a_network(clone: Clone) -> None:
    html = clone.folder / "book" / "_build" / "html"
    assert (html / "index.html").is_file()
    assert (html / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert list(building.problems(html)) == []
    assert list(html.rglob("*.woff2"))
    pictures = sum(page.read_text().count("<img") for page in html.rglob("*.html"))
    assert pictures > len(list((clone.folder / "book" / "executed").glob("*.ipynb")))


@pytest.mark.slow
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


@pytest.mark.slow
def test_dvc_shows_the_results(clone: Clone) -> None:
    shown = json.loads(clone.ok("dvc", "metrics", "show", "--json"))
    paths = {path for revision in shown.values() for path in revision["data"]}
    assert "results/structured/tiny/soft.json" in paths
    assert "results/finetune/tiny/soft/seed-11.json" in paths
    counted = [revision["data"]["results/ordinary/tiny.json"]["data"]["tflop"] for revision in shown.values()]
    assert min(counted) > 0
    assert "measure@structured-./tiny-base" in clone.ok("dvc", "dag")
    clone.ok("dvc", "plots", "show", "--out", str(clone.folder.parent / "plots"))


@pytest.mark.slow
def test_equal_results_are_equal_bytes(clone: Clone) -> None:
    before = (clone.folder / "dvc.lock").read_bytes()
    stages = ["items", "finetune@./tiny-soft-11", "measure@structured-./tiny-soft", "chapter@structured"]
    for stage in stages:
        assert clone.ran("dvc", "repro", "--force", "--single-item", stage) == {stage}
    assert (clone.folder / "dvc.lock").read_bytes() == before


@pytest.mark.slow
def test_a_kept_run_is_read_beside_the_others_and_computes_nothing(clone: Clone) -> None:
    clone.ok(sys.executable, "-m", "calibnb.pipeline.keep", "mine")
    kept = clone.folder / "runs" / "mine"
    about = json.loads((kept / "run.json").read_text())
    assert about["models"] == ["./tiny"] and about["measured"]["perplexity"][0] == "base"
    assert {"date", "device", "dtype", "packages", "python"} == set(about["provenance"])
    assert str(clone.folder) not in (kept / "run.json").read_text()
    try:
        clone.ok(sys.executable, "-m", "calibnb.book.read")
        html = clone.folder / ".read" / "book" / "_build" / "html"
        assert list(building.problems(html)) == []
        for page in ("openended", "structured", "perplexity", "finetuning", "baselines", "index"):
            text = (html / f"{page}.html").read_text()
            assert "./tiny (mine)" in text and "smollm2-135m (small)" in text
        assert "./tiny (mine)" in (html / "operations.html").read_text()
    finally:
        shutil.rmtree(kept)
    run = clone.run(sys.executable, "-m", "calibnb.pipeline.keep", "Mine")
    assert run.returncode == 1 and run.stderr.startswith("NAME: must be of lower-case letters")


@pytest.mark.slow
def test_a_parameter_of_one_method_runs_what_depends_on_it(clone: Clone) -> None:
    ran = clone.ran("dvc", "exp", "run", "-S", "finetune.soft.learning_rate=0.003")
    assert {"finetune@./tiny-soft-11", "measure@structured-./tiny-soft", "findings", "book"} <= ran
    others = {n for n in expected_stages() if n.startswith(("finetune", "measure", "weights", "page", "ground"))}
    assert ran & {name for name in others if "soft" not in name} == set()
    changed = json.loads(clone.ok("dvc", "metrics", "diff", "--json"))
    assert "results/structured/tiny/soft.json" in changed
    measured = {f"results/{benchmark}/tiny/soft.json" for benchmark in STUDY["benchmarks"]}
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
    clone.ok("dvc", "repro")  # what a test has run again comes back from DVC's cache


SHOWING = {"chapter", "finetuning", "findings", "ground", "introduction", "overview", "page", "tradeoff"}


def stale(clone: Clone) -> set[str]:
    """The stages that DVC would run because of what they depend on themselves, `code` aside."""
    clone.ok(sys.executable, "-m", "calibnb.pipeline.dependence")
    return set(json.loads(clone.ok("dvc", "status", "--json"))) - {"code"}


@pytest.mark.slow
def test_comments_docstrings_tests_and_prose_run_the_book_alone(
    clone: Clone, altered: Callable[[str, str, str], None]
) -> None:
    assert stale(clone) == set()
    altered("calibnb/trees/trie.py", "import annotations\n", "import annotations\n\n# A comment.\n")
    altered("calibnb/benchmarks/structured/measures.py", '"""', '"""Said otherwise. ')
    altered("notebooks/measure/structured.ipynb", "# Structured sampling of one variant", "# One variant")
    altered("tests/conftest.py", '"""', '"""Said otherwise. ')
    altered("README.md", "# calibnb", "# calibnb, a study")
    assert stale(clone) == set()
    altered("book/pages/executed.md", "# ", "# All ")
    assert stale(clone) == {"book"}


@pytest.mark.slow
def test_a_picture_runs_its_chapter(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    altered("notebooks/chapters/openended.ipynb", "Four panels", "Panels")
    assert stale(clone) == {"chapter@openended"}
    altered("notebooks/chapters/openended.ipynb", "found.picture(columns=2)", "found.picture(columns=1)")
    assert stale(clone) == {"chapter@openended"}
    # What it claims stays as it was, so that no other page has to be shown again.
    ran = clone.ran("dvc", "repro")
    assert ran == {"code", "chapter@openended", "book"}
    altered("calibnb/book/figures/fidelity.py", "labelsize=9", "labelsize=8")
    assert stale(clone) == {"chapter@structured"}
    # What all chapters print their tables with is no part of what measures and trains.
    altered("calibnb/book/tables.py", "digits: int = 2", "digits: int = 3")
    shown = {name.partition("@")[0] for name in stale(clone)}
    assert {"chapter", "findings"} <= shown <= SHOWING


@pytest.mark.slow
def test_code_runs_what_imports_it(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    altered("calibnb/benchmarks/perplexity/scoring.py", "batch_tokens: int = 4096", "batch_tokens: int = 2048")
    study = params.load(clone.folder / "params.yaml")
    assert stale(clone) == {f"measure@perplexity-./tiny-{variant}" for variant in study.variants}


VARIANTS = params.merge(STUDY, yaml_files.read(ROOT / "profiles/test.yaml"))["variants"]
MEASURED = {name: [f"measure@{name}-./tiny-{variant}" for variant in VARIANTS] for name in STUDY["benchmarks"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "quoting", "borrowing"),
    [
        ("openended", "draws", {}, {}),
        ("structured", "sampled.draws", {"ground@data", "ground@method"}, {}),  # which show the same space of answers
        ("capability", "items", {"tradeoff"}, {}),
        # The baselines leave as much room for an answer: theirs is the one benchmark that goes by keys of others.
        ("openended", "max_new_tokens", {}, {"beside", "chapter@baselines", *MEASURED["baselines"]}),
    ],
)
def test_a_key_of_one_benchmark_runs_that_benchmark(
    clone: Clone,
    altered: Callable[[str, str, str], None],
    name: str,
    key: str,
    quoting: Collection[str],
    borrowing: Collection[str],
) -> None:
    text = (clone.folder / "params.yaml").read_text()
    study = yaml.safe_load(text)
    block, (*outer, last) = study["benchmarks"][name], key.split(".")
    for part in outer:
        block = block[part]
    block[last] -= 1
    altered("params.yaml", text, yaml.safe_dump(study, sort_keys=False))
    own = {f"chapter@{name}", *OVERVIEW, "findings", "book", *MEASURED[name], *quoting}
    # The check and what is asked are of the whole file; what they leave stays as it is.
    assert stale(clone) == {"check", "items"} | own
    clone.ok("dvc", "repro", "check", "items")
    assert stale(clone) == own | {*borrowing}


@pytest.mark.slow
def test_a_held_out_grid_trains_nothing(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    study = params.load(clone.folder / "params.yaml")
    altered("grids.yaml", "log: [1.0, 12.0, 17]", "log: [1.5, 12.0, 17]")
    # Measured are selected settings first: of these one moves, too.
    altered("grids.yaml", "- {lambda: 1.0}\n  - {lambda: 4.0}", "- {lambda: 2.0}\n  - {lambda: 4.0}")
    assert stale(clone) == {"check", "items"}
    clone.ok("dvc", "repro", "check", "items")
    asking = ("structured", "baselines", "told")
    measured = {f"measure@{name}-./tiny-{variant}" for name in asking for variant in study.variants}
    pages = {f"ground@{name}" for name in STAGES["ground"]["matrix"]["name"]}
    assert {f"measure@structured-./tiny-{variant}" for variant in study.variants} <= stale(clone)
    assert stale(clone) <= measured | pages | {"beside", "introduction", *(f"chapter@{name}" for name in asking)}


@pytest.mark.slow
def test_a_named_model_more_runs_nothing(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    entry = '    "smollm2-360m": Source(name="smollm2-360m", kind="package"),\n'
    altered("calibnb/models/sources.py", '    "smollm2-135m": Source(', f'{entry}    "smollm2-135m": Source(')
    assert stale(clone) == set()
    text = (clone.folder / "params.yaml").read_text()
    more = yaml.safe_load(text)
    more["models"].append("smollm2-360m")
    altered("params.yaml", text, yaml.safe_dump(more, sort_keys=False))
    assert {name for name in stale(clone) if name.startswith(("weights", "finetune", "measure"))} >= {
        "weights@smollm2-360m"
    }
    assert [name for name in stale(clone) if "./tiny" in name] == []


@pytest.mark.slow
def test_a_named_method_more_trains_that_method(clone: Clone, altered: Callable[[str, str, str], None]) -> None:
    text = (clone.folder / "params.yaml").read_text()
    more = yaml.safe_load(text)
    more["methods"].append("further")
    more["finetune"]["further"] = more["finetune"]["mixed"] | {"learning_rate": 0.003}
    altered("params.yaml", text, yaml.safe_dump(more, sort_keys=False))
    clone.ok("dvc", "repro", "check", "items", "ordinary@./tiny")
    work = ("weights", "ordinary", "finetune", "temperature", "measure")
    assert {name for name in stale(clone) if name.startswith(work)} == {"finetune@./tiny-further-11"}


@pytest.mark.slow
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
        assert re.findall(r"^Running stage '(.*)':$", run.stdout, re.MULTILINE) == ["check"]
    finally:
        path.write_text(right)
    assert sorted((clone.folder / "variants").rglob("*")) == made


@pytest.mark.slow
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


@pytest.mark.slow
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
