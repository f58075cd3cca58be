"""Keep the tables of a finished run, so that others read it without computing anything.

    python -m calibnb.pipeline.keep NAME [--folder FOLDER] [--only BENCHMARK]...

``runs/NAME`` gets the tables that chapters need, made small (each benchmark says which and how), the small results, the
page of what needs a model, the parameters, and ``run.json``, which says where all comes from. Of a run that measured
some benchmarks alone, those are kept with what their chapters and that on training have found.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import shutil
import sys
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from calibnb.benchmarks import registry
from calibnb.errors import UserError
from calibnb.evidence import results, runs
from calibnb.models import loading
from calibnb.models.places import place
from calibnb.pipeline import params

HARNESS = "lm-eval"  # which the benchmark capability alone needs
PACKAGES = ("torch", "transformers", "peft", "accelerate", HARNESS, "scipy", "numpy", "pandas")
LARGEST = 4 * 2**20  # bytes of tables a model

# Small files that pages read, below the folder of a run; the page of the method needs a model when it is made.
SMALL = (
    "grids.yaml",
    "items/novelty/judge.json",
    "items/novelty/pairs.parquet",
    "items/structured/settings.jsonl",
    "items/study/settings.jsonl",
    "params.yaml",
)
PAGES = ("method",)
# Whose settings small files below ``items`` have, beside benchmarks.
STUDY = "study"
TRAINING = "finetuning"  # the chapter whose findings are of no benchmark


def about(study: params.Params, folder: Path, kept: Collection[str]) -> dict[str, Any]:
    """What tables of a run are read by, and where they come from; ``kept`` are the benchmarks that it has."""
    run = runs.of_study(study, folder / "results")
    device = loading.pick_device(study.compute.device)
    dtype = loading.pick_dtype(study.compute.dtype, device)
    return {
        "models": run.models,
        "seeds": run.seeds,
        "measured": {name: found for name, found in run.lists.items() if name in (*kept, "methods")},
        "methods": {name: how.model_dump(mode="json") for name, how in run.methods.items()},
        "bootstrap": run.resamples,
        "provenance": {
            "date": datetime.date.today().isoformat(),
            "device": _processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
            "dtype": str(dtype).removeprefix("torch."),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in PACKAGES if name != HARNESS or "capability" in kept},
        },
    }


def _processor() -> str:
    """What the processor calls itself, and what it can do that changes results."""
    said = Path("/proc/cpuinfo")
    text = said.read_text(encoding="utf-8", errors="replace") if said.is_file() else ""
    name = re.search(r"model name\s*: (.*)", text)
    units = "with" if "avx512_bf16" in text or "amx_bf16" in text else "without"
    return f"{name[1] if name else platform.machine()}, {units} bfloat16 units, {torch.get_num_threads()} threads"


def keep(folder: Path, out: Path, only: Collection[str] = ()) -> None:
    """Copy what pages need of the finished run in `folder` to `out`, which is replaced.

    Parameters
    ----------
    folder : Path
        The project's folder with the run.
    out : Path
        Where its tables go.
    only : Collection[str]
        The benchmarks that the run has measured, where it has not measured all.

    Raises
    ------
    UserError
        For an unknown benchmark, a run that is not finished, and tables that are too large.
    """
    study = params.load(folder / "params.yaml")
    benchmarks = registry.benchmarks()
    for name in only:
        if name not in benchmarks:
            raise UserError(f"--only: must be a benchmark ({', '.join(benchmarks)}), got {json.dumps(name)}")
    found = [Path("results/findings") / f"{name}.json" for name in (*only, TRAINING)]
    for path in found if only else [Path("results/findings.json")]:
        if not (folder / path).is_file():
            raise UserError(f"{folder}: must be a folder with a finished run; there is no {path}")
    shutil.rmtree(out, ignore_errors=True)
    for small_file in SMALL:
        if not only or not small_file.startswith("items/") or small_file.split("/")[1] in (*only, STUDY):
            _copy(folder / small_file, out / small_file)
    for page in () if only else PAGES:
        _copy(folder / "book" / "executed" / f"{page}.ipynb", out / "pages" / f"{page}.ipynb")
    small = [path for path in (folder / "results").rglob("*") if path.suffix in (".json", ".csv")]
    for path in small:
        if "reference" not in path.relative_to(folder).parts:
            _copy(path, out / path.relative_to(folder))
    if only:
        rows = [row for path in found for row in json.loads((folder / path).read_text(encoding="utf-8"))]
        results.write_json(rows, out / "results/findings.json")
    else:
        _copy(folder / "results/baselines/beside.parquet", out / "results/baselines/beside.parquet")
    kept = {name: benchmark for name, benchmark in benchmarks.items() if not only or name in only}
    for model in study.models:
        written = 0
        for name, benchmark in kept.items():
            for variant in study.measured(name):
                where = Path("results") / name / place(model) / variant
                for table, compact in benchmark.kept.items():
                    if not (folder / where / f"{table}.parquet").is_file():  # of the baselines, base alone has some
                        continue
                    frame = compact(pd.read_parquet(folder / where / f"{table}.parquet"))
                    (out / where).mkdir(parents=True, exist_ok=True)
                    frame.to_parquet(out / where / f"{table}.parquet", index=False, compression="zstd")
                    written += (out / where / f"{table}.parquet").stat().st_size
        if written > LARGEST:
            raise UserError(f"{out}: the tables of {model} take {written:,} bytes; allowed: {LARGEST:,}")
    results.write_json(about(study, folder, kept), out / runs.ABOUT)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calibnb.pipeline.keep", description="Keep a run's tables.")
    parser.add_argument("name", help="of the folder below runs")
    parser.add_argument("--folder", type=Path, default=Path(), help="the project's folder with the run")
    parser.add_argument("--only", action="append", default=[], metavar="BENCHMARK", help="one that the run measured")
    given = parser.parse_args(arguments)
    try:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", given.name):
            raise UserError(f"NAME: must be of lower-case letters, digits and . _ -, got {json.dumps(given.name)}")
        keep(given.folder, Path("runs") / given.name, given.only)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
