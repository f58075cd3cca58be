"""Models' names, from params.yaml through DVC, a shell and a command line to a notebook, its outputs and its page."""

from __future__ import annotations

import copy
import os
import re
import shutil
import string
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from conftest import digit_chat_tokenizer, tiny_model
from dvc.parsing import DataResolver
from dvc.repo import Repo
from dvc.utils import parse_target
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_code import ROOT

from calibnb.benchmarks import registry
from calibnb.book import building
from calibnb.errors import UserError
from calibnb.models import cards, loading, naming
from calibnb.models.naming import PASSED_OVER, REFUSED, requirement
from calibnb.models.places import place
from calibnb.models.sources import TABLE
from calibnb.pipeline import execute, measure, needed, params

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMETERS = params.read(ROOT / "params.yaml")

# Every mark of ASCII that goes through, and letters that are more than one byte long.
AWKWARD = "./ " + "".join(c for c in string.punctuation if c not in REFUSED + "/") + "/-è/~模型 हिन्दी/+2  😀 "

# A study with few settings and few runs: what is tried here is its names.
SMALL: dict[str, Any] = {
    "methods": ["soft"],
    "variants": ["base", "soft", "temperature"],
    "seeds": [3],
    "families": {"gaussian": PARAMETERS["families"]["gaussian"]},
    "temperature": {"method": "soft"},
    "benchmarks": {
        **{name: {"variants": ["base"]} for name in registry.blocks()},
        **{name: {"variants": ["base", "soft"]} for name in ("capability", "perplexity")},
        "structured": {
            "settings": {"in_range": "all", "unseen": "all", "held_out": "none"},
            "sampled": {"settings": "none"},
        },
    },
}


def small(**changes: Any) -> dict[str, Any]:
    raw = copy.deepcopy(params.merge(PARAMETERS, SMALL))
    raw["families"] = SMALL["families"]
    return raw | changes


class Project:
    """A folder with dvc.yaml and params.yaml, and a `python` that only notes its arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("dvc.yaml", ".dvcignore"):
            shutil.copy(ROOT / name, folder / name)
        (folder / "notebooks").symlink_to(ROOT / "notebooks")
        (folder / needed.FOLDER).mkdir(parents=True)
        self.repo = Repo.init(str(folder), no_scm=True)
        self.bin, self.noted = folder / "bin", folder / "noted"
        self.bin.mkdir()
        (self.bin / "python").write_text('#!/bin/sh\nprintf "%s\\0" "$@" >> "$NOTED"\nprintf "\\1\\0" >> "$NOTED"\n')
        (self.bin / "python").chmod(0o755)

    def write(self, raw: dict[str, Any]) -> None:
        params.write(raw, self.folder)

    def stages(self) -> dict[str, dict[str, Any]]:
        """The stages as DVC resolves them."""
        found: dict[str, dict[str, Any]] = DataResolver(self.repo, str(self.folder), PIPELINE).resolve()["stages"]
        return found

    def arguments(self, commands: list[str]) -> list[list[str]]:
        """What each command hands to Python, after a shell has read it as DVC lets it: line by line."""
        assert [len(command.splitlines()) for command in commands] == [1] * len(commands)
        self.noted.unlink(missing_ok=True)
        environment = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "NOTED": str(self.noted)}
        subprocess.run(["sh", "-e", "-c", "\n".join(commands)], env=environment, cwd=self.folder, check=True)
        runs = self.noted.read_bytes().decode().split("\1\0")[:-1]
        return [run.split("\0")[:-1] for run in runs]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


MODULES = {
    f"calibnb.pipeline.{module.__name__.rpartition('.')[2]}": module.main for module in (execute, measure, needed)
}


def runs(project: Project, arguments: list[list[str]]) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
    """Notebook, output and parameters of each command that runs one, as `pipeline.execute` reads them."""
    with pytest.MonkeyPatch.context() as patch:
        read: list[tuple[Path, Path, dict[str, Any]]] = []
        patch.setattr(execute, "execute", lambda *given: read.append(given))
        patch.chdir(project.folder)
        for option, module, *given_ in arguments:
            assert option == "-m"
            assert MODULES[module](given_) == 0
    yield from read


def names() -> st.SearchStrategy[str]:
    """Folders from awkward characters, from letters of all scripts, and from parts that mean something to somebody."""
    characters = string.punctuation.replace("/", "") + " abc12é模\t\n\x7f\u0301\u2028"
    awkward = st.text(st.sampled_from(characters), min_size=1)
    letters = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"], exclude_characters="/"), min_size=1)
    reserved = st.sampled_from(["weights", "base", "..", ".", "", "a.ipynb", "dvc.yaml", "#2", "1e3", "on"])
    part = st.one_of(awkward, awkward, letters, reserved, st.sampled_from(PASSED_OVER))
    return st.builds(
        lambda start, parts, end: start + "/".join(parts) + end,
        st.sampled_from(["./", "/"]),
        st.lists(part, min_size=1, max_size=3),
        st.sampled_from(["", "", "", "/"]),
    )


def accepted() -> st.SearchStrategy[str]:
    return names().filter(lambda name: requirement(name) is None)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=accepted())
@example(name="./two words +2")
@example(name="./1e3")
@example(name="./: a, [b]: {c}")
@example(name=AWKWARD)
@example(name="/" + "/".join(["è" * 100, "x" * 200] * 2))
@example(name="/root/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de2")
@example(name="smollm2-135m")
@example(name="Qwen/Qwen2.5-0.5B")
def test_a_name_that_is_accepted_arrives_and_its_files_are_where_they_are_looked_for(
    project: Project, name: str
) -> None:
    raw = small(models=[name])
    study = params.parse(raw)
    project.write(raw)
    for stage, by_whom in study.needed().items():
        (project.folder / needed.FOLDER / f"{stage}.yaml").write_text(yaml.safe_dump(by_whom))
    matrices = [name for name, stage in PIPELINE["stages"].items() if "model" in stage.get("matrix", {})]
    stages = {key: stage for key, stage in project.stages().items() if key.split("@")[0] in matrices}
    for key in stages:  # each can be run alone, by its name
        assert parse_target(key) == ("dvc.yaml", key) or parse_target(key) == (None, key)
    found = list(runs(project, project.arguments([stage["cmd"] for stage in stages.values()])))
    assert {parameters["model"] for _, _, parameters in found} == {name}
    pages = {Path("book/executed") / f"{entry['file']}.ipynb" for entry in building.appendix(study)}
    assert {out for _, out, _ in found} == pages
    slug = place(name)
    made = {path for stage in stages.values() for path in map(_path, stage["outs"])}
    assert pages < made
    assert {Path("models") / slug / "weights", Path("variants") / slug / "base"} < made
    assert Path("variants") / slug / "soft" / "seed-3" in made
    assert Path("results/structured") / slug / "base" in made
    ignored = project.repo.dvcignore
    assert [p for p in made if ignored.is_ignored_dir(str(project.folder / p))] == []


def _path(out: str | dict[str, Any]) -> Path:
    """The path of an output of dvc.yaml, which may carry options, without what leads nowhere."""
    return Path(os.path.normpath(out if isinstance(out, str) else next(iter(out))))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=names().filter(lambda name: requirement(name) is not None))
@example(name="./it's")
@example(name="./two words #2")
@example(name="./tiny/")
@example(name="./a//b")
@example(name="/a/./b")
@example(name="//a")
@example(name="./a@b")
@example(name="./a\\b")
@example(name="./a\x85b")
@example(name="./a\u200bb")
@example(name="./" + unicodedata.normalize("NFD", "modèle"))
@example(name="./a.dvc")
@example(name="./a/.git/b")
@example(name="judge/b/c")
@example(name="org/name.ipynb")
@example(name="./" + "é" * 101)
@example(name="/" + "/".join(["x" * 199] * 6))
def test_a_name_that_is_refused_is_one_line(project: Project, name: str) -> None:
    project.write(small(models=[name]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        with pytest.raises(UserError, match=r"^params\.yaml: models\.0: must be .*, got ") as caught:
            params.check("params.yaml")
        assert len(str(caught.value).splitlines()) == 1 and str(caught.value).isprintable()
    with pytest.raises(UserError, match=r"^models: must be .*, got ") as caught:
        naming.resolve(name)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["./tiny/", ".//tiny", "././tiny", "./tiny/.", "./tiny//"])
def test_the_same_folder_written_otherwise_is_refused_with_the_name_to_write(name: str) -> None:
    assert requirement(name) == "written as ./tiny"


@pytest.mark.parametrize("name", [*TABLE, "org/name", "./a/b", "/a/b", "./.a/..b/c..", "./-x", "./ "])
def test_a_place_is_the_path_below_any_folder(name: str) -> None:
    assert requirement(name) is None
    assert Path("models", place(name)) == Path("models") / name.lstrip("/")


def test_what_is_passed_over_at_any_depth_is_what_the_ignore_files_say() -> None:
    lines = {line for file in (".gitignore", ".dvcignore") for line in (ROOT / file).read_text().splitlines()}
    anywhere = {line.rstrip("/") for line in lines if line and not line.startswith(("#", "/"))}
    assert anywhere <= set(PASSED_OVER)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["./a", "/a"]}, "models: must be names that differ as paths, got"),
        ({"models": ["./A", "./a"]}, "models: must be names that differ by more than their case, got"),
        ({"models": ["Org/x", "./org/X"]}, "models: must be names that differ by more than their case, got"),
        ({"models": ["./a", "./a/weights"]}, "models: must be names of which none lies in the weights of another"),
        ({"models": ["./a/base/b", "./a"]}, "models: must be names of which none lies in the base of another"),
        ({"models": ["./a", "./a/soft"]}, "models: must be names of which none lies in the soft of another"),
        (
            {"models": ["./a", "./a-b"], "methods": ["soft", "b-soft"]},
            "methods: must make stages that differ when joined to models with -, got ./a-b-soft-3 twice",
        ),
        (
            {"models": ["./a", "./a-b"], "methods": ["soft", "b-base"], "variants": ["base", "soft", "b-base"]},
            "variants: must make stages that differ when joined to models with -, got ./a-b-base twice",
        ),
        ({"models": ["./a", "./a/checkpoint-100", "./ab", "./b/a"]}, None),
        ({"models": ["./a", "./a-b"]}, None),
    ],
)
def test_models_keep_out_of_each_others_way(project: Project, changes: dict[str, Any], message: str | None) -> None:
    raw = small(**changes)
    raw["finetune"] |= {"b-soft": raw["finetune"]["soft"], "b-base": raw["finetune"]["soft"]}
    if message is None:
        params.parse(raw)
        project.write(raw)
        made = [_path(out) for stage in project.stages().values() for out in stage.get("outs", [])]
        assert [(a, b) for a in made for b in made if a != b and a.is_relative_to(b)] == []
        assert len(set(made)) == len(made)
    else:
        with pytest.raises(UserError, match=f"^params.yaml: {re.escape(message)}"):
            params.parse(raw)


# ------------------------------------------------------------------------------------------ other values


def arriving(project: Project, key: str, spelled: str, stage: str) -> tuple[params.Params, list[dict[str, Any]]]:
    """The study, and the parameters of its runs of a stage, where a key of params.yaml is spelled in a certain way."""
    raw = small(models=["./a"], **({"compute": {}} if key == "compute" else {}))
    params.write(raw, project.folder)
    text = yaml.safe_dump({key: value for key, value in raw.items() if key != "families"}, sort_keys=False)
    line = {"seeds": f"seeds: [{spelled}]", "compute": None}[key]
    if line is None:
        compute = f"compute: {{device: auto, dtype: auto, trust_remote_code: {spelled}}}"
        text = text.replace("compute: {}", compute)
    else:
        text = text.replace("seeds:\n- 3", line)
    (project.folder / "params.yaml").write_text(text)
    study = params.load(project.folder / "params.yaml")
    commands = [found["cmd"] for name, found in project.stages().items() if name.startswith(f"{stage}@")]
    return study, [parameters for _, _, parameters in runs(project, project.arguments(commands))]


@pytest.mark.parametrize("spelled", ["0", "7", "+7", "0x1F", "0b11", "1_000", "4294967295"])
def test_a_seed_arrives_as_it_is_read(project: Project, spelled: str) -> None:
    study, found = arriving(project, "seeds", spelled, "finetune")
    assert [parameters["seed"] for parameters in found] == list(study.seeds)


@pytest.mark.parametrize("spelled", ["010", "-010", "0_7", "00", "1:30", "0o17", "08", "1e1", "on", "1.0"])
def test_a_seed_that_dvc_would_read_otherwise_is_refused(project: Project, spelled: str) -> None:
    with pytest.raises(UserError) as caught:
        arriving(project, "seeds", spelled, "finetune")
    assert spelled in str(caught.value) or "must be an integer" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("spelled", ["true", "false", "True", "FALSE", "yes", "no", "on", "off"])
def test_a_truth_value_arrives_as_it_is_read(project: Project, spelled: str) -> None:
    study, found = arriving(project, "compute", spelled, "weights")
    assert [parameters["trust_remote_code"] for parameters in found] == [study.compute.trust_remote_code]


@pytest.mark.parametrize("name", ["1e3", "0x1f", "010", "1_0", "on", "null", "2"])
def test_a_method_that_a_file_made_anew_would_spell_as_another_value_is_refused(name: str) -> None:
    raw = small(methods=[name], models=["./a"])
    with pytest.raises(UserError, match=r"methods\.0: must be a name of lower-case letters"):
        params.parse(raw)


# ------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A clone after the weights stage, with models in folders of awkward names; and the names."""
    folder = tmp_path_factory.mktemp("clone")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in listing:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    chosen = [AWKWARD, str(folder / ".cache" / "two words +2")]
    tokenizer = digit_chat_tokenizer()
    for place_, seed in zip(["two words", *chosen], (0, 1, 2), strict=True):  # of the first, none may be taken
        tiny_model("llama", len(tokenizer), seed=seed).save_pretrained(folder / place_)
        tokenizer.save_pretrained(folder / place_)
    params.write(small(models=chosen), folder)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(folder)}
    for command in (["git", "init", "--quiet"], ["dvc", "repro", "--quiet", "weights"]):
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-4000:]
    return folder, chosen


@pytest.mark.slow
def test_the_model_that_is_named_is_the_one_that_runs(weighed: tuple[Path, list[str]]) -> None:
    folder, chosen = weighed
    for name in chosen:
        card = cards.Card.load(folder / "results" / "weights" / f"{place(name)}.json")
        assert card.name == name
        given = folder / name / "model.safetensors"
        assert card.safetensors_sha256 == {"model.safetensors": cards.file_sha256(given)}
        network, _ = loading.load(folder / "models" / place(name) / "weights")
        assert sum(p.numel() for p in network.parameters()) == card.parameters


@pytest.mark.slow
def test_every_page_of_the_model_that_is_named_is_in_the_book(weighed: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, chosen = weighed
    study = params.load(folder / "params.yaml")
    executed = folder / "book" / "executed"
    for entry in building.appendix(study):  # the stages that did not run
        stub = executed / f"{entry['file']}.ipynb"
        if not stub.exists():
            stub.parent.mkdir(parents=True, exist_ok=True)
            cells = [new_markdown_cell("# A page", id="a"), new_code_cell("1", id="b")]
            nbformat.write(new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), stub)
    small_book = tmp_path / "book"
    (small_book / "pages").mkdir(parents=True)
    shutil.copytree(ROOT / "book" / "_static", small_book / "_static")
    for name in ("_config.yml", "references.bib"):
        shutil.copy(ROOT / "book" / name, small_book / name)
    (small_book / "index.md").write_text("# A book\n")
    (small_book / f"{building.APPENDIX}.md").write_text("# Executed\n")
    chapters = [{"chapters": [{"file": building.APPENDIX}], "caption": "All"}]
    toc = {"format": "jb-book", "root": "index", "parts": chapters}
    (small_book / "_toc.yml").write_text(yaml.safe_dump(toc))
    building.assemble(small_book, executed, building.appendix(study), tmp_path / "source")
    building.build(tmp_path / "source", tmp_path / "html")
    assert list(building.problems(tmp_path / "html")) == []
    for entry in building.appendix(study):
        assert (tmp_path / "html" / f"{entry['file']}.html").is_file()
    for name in chosen:
        text = (tmp_path / "html" / "weights" / f"{place(name)}.html").read_text()
        digest = cards.file_sha256(folder / name / "model.safetensors")
        assert digest in text
