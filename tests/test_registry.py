"""Benchmarks are folders: one more is found by everything that goes through them all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from notebook_code import ROOT

from calibnb.benchmarks import registry

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


def test_a_folder_more_is_a_benchmark_more(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "calibnb", tmp_path / "calibnb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "grids.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    coin = tmp_path / "calibnb" / "benchmarks" / "coin"
    coin.mkdir()
    for name, text in COIN.items():
        (coin / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", ASKING], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    modules = " ".join(f"calibnb/benchmarks/coin/{name}.py" for name in ("benchmark", "items", "params"))
    assert run.stdout.splitlines() == [
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


def test_every_benchmark_is_whole() -> None:
    """Its name is that of its folder everywhere, and it has a notebook that measures and one that shows."""
    found = registry.benchmarks()
    assert list(found) == list(registry.blocks())
    for name, benchmark in found.items():
        assert benchmark.name == benchmark.table.among == name
        assert (ROOT / "notebooks" / "measure" / f"{name}.ipynb").is_file()
        assert (ROOT / "notebooks" / "chapters" / f"{name}.ipynb").is_file()
        measures = [measure.name for measure in benchmark.measures]
        assert {measure.given for measure in benchmark.measures if measure.given} <= set(measures) | {
            "structured.number_mass",  # of the summary of baselines, which names more than it shows
            "openended.answered",
            "novelty.answered",
        }
