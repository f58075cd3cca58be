"""What is touched to add something to the study: a family, a model, a method, a benchmark, a claim, a figure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from made_up import METHODS, VARIANTS, tables
from notebook_code import ROOT

from calibnb.benchmarks import registry
from calibnb.evidence import claims, verdicts
from calibnb.evidence.runs import Run
from calibnb.pipeline import dependence, params

COIN = {
    "__init__.py": '"""A coin."""\n',
    "params.py": '''"""Block on a coin."""

from calibnb.benchmarks.params import BenchmarkParams
from calibnb.blocks import Count


class CoinParams(BenchmarkParams):
    throws: Count
''',
    "items.py": '''"""What is asked."""


def prepare(study, folder):
    (folder / "asked.txt").write_text("heads or tails?")
''',
    "benchmark.py": '''"""Its measures."""

from calibnb.benchmarks.declaration import Benchmark, Measure
from calibnb.evidence.claims import Items, Parquet, Table

TABLE = Table("coin", Parquet("coin", "throws"))
BENCHMARK = Benchmark("coin", "A coin", TABLE, Items("id"), (Measure("heads", "heads (share)"),), ())
''',
}
ASKING = """
from pathlib import Path
from calibnb import yaml_files
from calibnb.benchmarks import registry
from calibnb.book import building
from calibnb.errors import UserError
from calibnb.pipeline import dependence, params

print(*registry.blocks())
print(registry.benchmarks()["coin"].title)
registry.modules(registry.ITEMS)["coin"].prepare(None, Path())
raw = params.read("params.yaml")
try:
    params.parse(raw)
except UserError as error:
    print(error)
raw["benchmarks"]["coin"] = {"variants": ["base", "soft"], "throws": 3}
study = params.parse(raw)
print(*study.measured("coin"))
print(*[page["title"] for page in building.appendix(study) if "/coin/" in page["file"]], sep=", ")
for module in ("calibnb.pipeline.params", "calibnb.pipeline.items", "calibnb.book.building"):
    print(*[path for path in dependence.Library(Path()).hashes(f"import {module}") if "/coin/" in path])
"""


def copied(folder: Path, *more: str) -> None:
    """A copy of the library and the parameters, to change."""
    for name in ("calibnb", *more):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "grids.yaml"):
        shutil.copy(ROOT / name, folder)


def put(path: Path, before: str, text: str) -> None:
    """Put text into a file, before a text that stands there once."""
    content = path.read_text()
    assert content.count(before) == 1
    path.write_text(content.replace(before, text + before))


def said(folder: Path, script: str) -> list[str]:
    """What a script prints that has the copied library."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_a_family(tmp_path: Path) -> None:
    """One entry in the table of families, one grid."""
    copied(tmp_path)
    entry = """    Family(
        "semicircle",
        "Semicircle",
        (_positive("R", "radius"),),
        False,
        lambda p: stats.semicircular(scale=p["R"]),
        lambda p: (-p["R"], p["R"]),
    ),
"""
    put(tmp_path / "calibnb" / "laws" / "families.py", "]\nFAMILIES: ", entry)
    with (tmp_path / "grids.yaml").open("a") as grids:
        grids.write("semicircle: {held_out: {R: {lin: [1.0, 3.0, 5]}}, selected: [{R: 2.0}]}\n")
    script = """
from calibnb.laws import settings, specs
from calibnb.pipeline import params

study = params.load("params.yaml")
built = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
own = [spec for spec in built if spec.family == "semicircle"]
print(*(spec.label for spec in own), *{spec.split for spec in own})
print(settings.questions(own[2:3], study.prompt)[0].prompt)
print(own[2].law.std())
"""
    labels, prompt, deviation = said(tmp_path, script)
    assert labels == " ".join(f"semicircle(R={r})" for r in ("1", "1.5", "2", "2.5", "3")) + " held_out"
    assert prompt.endswith("answer with the number alone: Semicircle, R = 2")
    assert deviation == "1.0"  # R / 2


def test_a_model(tmp_path: Path) -> None:
    """Its name in `models`, and for a packaged one an entry in the table."""
    raw = params.read(ROOT / "params.yaml")
    for name in ("org/name", "./folder"):
        assert params.parse(raw | {"models": [name]}).models == (name,)
    copied(tmp_path)
    entry = """    "toy-1b": Source(
        name="toy-1b", kind="package", packages=("toy==1",), members=("toy.gguf",), sha256="0" * 64, parameters=1
    ),
"""
    script = """
from calibnb.errors import UserError
from calibnb.pipeline import params

try:
    print(*params.parse(params.read("params.yaml") | {"models": ["toy-1b"]}).models)
except UserError as error:
    print(error)
"""
    assert said(tmp_path, script)[0].startswith("params.yaml: models.0: must be one of ")
    put(tmp_path / "calibnb" / "models" / "sources.py", '    "smollm2-135m": Source(', entry)
    assert said(tmp_path, script) == ["toy-1b"]


def test_a_method(tmp_path: Path) -> None:
    """One block of the keys in which it differs from the defaults."""
    path = shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "grids.yaml", tmp_path)
    put(Path(path), "  soft: {<<: *defaults}\n", "  slow: {<<: *defaults, learning_rate: 1.0e-5}\n")
    raw = params.read(path)
    raw["methods"].append("slow")
    study = params.parse(raw)
    before = params.load(ROOT / "params.yaml")
    assert study.methods == (*before.methods, "slow")
    assert study.finetune["slow"] == before.finetune["soft"].model_copy(update={"learning_rate": 1.0e-5})
    assert {name: how for name, how in study.finetune.items() if name != "slow"} == before.finetune


def test_a_benchmark(tmp_path: Path) -> None:
    """One folder and one block of parameters (and two notebooks, and a line in the table of contents)."""
    copied(tmp_path)
    coin = tmp_path / "calibnb" / "benchmarks" / "coin"
    coin.mkdir()
    for name, text in COIN.items():
        (coin / name).write_text(text)
    lines = said(tmp_path, ASKING)
    modules = " ".join(f"calibnb/benchmarks/coin/{name}.py" for name in ("benchmark", "items", "params"))
    assert lines == [
        "baselines capability coin language mixing novelty openended perplexity positions sequences structured told",
        "A coin",
        "params.yaml: benchmarks.coin: must be given, got nothing",
        "base soft",
        "A coin of qwen2.5-coder-0.5b: base, A coin of qwen2.5-coder-0.5b: soft",
        modules,
        modules,
        modules,
    ]
    assert (tmp_path / "asked.txt").read_text() == "heads or tails?"


def test_a_claim(tmp_path: Path) -> None:
    """One row of a table."""
    tables(tmp_path, ["tiny"], VARIANTS)
    run = Run(tmp_path, ["tiny"], [11], {"openended": VARIANTS}, {name: METHODS[name] for name in VARIANTS[1:]}, 20)
    benchmark = registry.benchmarks()["openended"]
    before = claims.evaluate([benchmark.claims], run)
    row = next(row for section in benchmark.claims for row in section if row.claim)
    more = replace(
        row,
        measure="valid_share",
        id="openended.{variant}.valid_vs_{against}",
        question="Does {variant} give more valid answers than {reference}?",
        claim="{variant} gives more valid answers than {reference}",
        rule=verdicts.above_zero,
    )
    after = claims.evaluate([(*benchmark.claims, (more,))], run)
    assert after[: len(before)] == before
    assert "openended.soft.valid_vs_format" in [finding["id"] for finding in after[len(before) :]]


def test_a_figure(tmp_path: Path) -> None:
    """One function, one cell: nothing but its chapter depends on them."""
    copied(tmp_path, "notebooks")
    before = dependence.of_stages(tmp_path)
    function = '''"""A figure."""

from matplotlib.figure import Figure

from calibnb.book import style


def dot() -> Figure:
    return style.panel_grid(1)[0]
'''
    (tmp_path / "calibnb" / "book" / "figures" / "dots.py").write_text(function)
    assert dependence.of_stages(tmp_path) == before
    chapter = tmp_path / "notebooks" / "chapters" / "mixing.ipynb"
    notebook = json.loads(chapter.read_text())
    cell = {"cell_type": "code", "execution_count": None, "id": "dot", "metadata": {}, "outputs": []}
    notebook["cells"].append(cell | {"source": "from calibnb.book.figures import dots\n\ndots.dot()"})
    chapter.write_text(json.dumps(notebook))
    after = dependence.of_stages(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"chapters/mixing"}
    assert after["chapters/mixing"].keys() - before["chapters/mixing"].keys() == {"calibnb/book/figures/dots.py"}
