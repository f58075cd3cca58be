"""Keep the tables of a finished run, so that others read it without computing anything.

    python -m calibnb.pipeline.keep NAME [--folder FOLDER]

``runs/NAME`` gets the tables that chapters need, made small (each benchmark says which and how), the small results, the
page of what needs a model, the parameters, and ``run.json``, which says where all comes from.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import shutil
import sys
from collections.abc import Sequence
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

PACKAGES = ("torch", "transformers", "peft", "accelerate", "lm-eval", "scipy", "numpy", "pandas")
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


def about(study: params.Params, folder: Path) -> dict[str, Any]:
    """What tables of a run are read by, and where they come from."""
    run = runs.of_study(study, folder / "results")
    device = loading.pick_device(study.compute.device)
    dtype = loading.pick_dtype(study.compute.dtype, device)
    return {
        "models": run.models,
        "seeds": run.seeds,
        "measured": run.lists,
        "methods": {name: how.model_dump(mode="json") for name, how in run.methods.items()},
        "bootstrap": run.resamples,
        "provenance": {
            "date": datetime.date.today().isoformat(),
            "device": _processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
            "dtype": str(dtype).removeprefix("torch."),
            "python": platform.python_version(),
            "packages": {package: version(package) for package in PACKAGES},
        },
    }


def _processor() -> str:
    """What the processor calls itself, and what it can do that changes results."""
    said = Path("/proc/cpuinfo")
    text = said.read_text(encoding="utf-8", errors="replace") if said.is_file() else ""
    name = re.search(r"model name\s*: (.*)", text)
    units = "with" if "avx512_bf16" in text or "amx_bf16" in text else "without"
    return f"{name[1] if name else platform.machine()}, {units} bfloat16 units, {torch.get_num_threads()} threads"


def keep(folder: Path, out: Path) -> None:
    """Copy what pages need of the finished run in `folder` to `out`, which is replaced.

    Raises
    ------
    UserError
        For a run that is not finished, and for tables that are too large.
    """
    study = params.load(folder / "params.yaml")
    if not (folder / "results" / "findings.json").is_file():
        raise UserError(f"{folder}: must be a folder with a finished run; there is no results/findings.json")
    shutil.rmtree(out, ignore_errors=True)
    for name in SMALL:
        _copy(folder / name, out / name)
    for page in PAGES:
        _copy(folder / "book" / "executed" / f"{page}.ipynb", out / "pages" / f"{page}.ipynb")
    small = [path for path in (folder / "results").rglob("*") if path.suffix in (".json", ".csv")]
    for path in small:
        if "reference" not in path.relative_to(folder).parts:
            _copy(path, out / path.relative_to(folder))
    _copy(folder / "results/baselines/beside.parquet", out / "results/baselines/beside.parquet")
    for model in study.models:
        written = 0
        for name, benchmark in registry.benchmarks().items():
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
    results.write_json(about(study, folder), out / runs.ABOUT)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calibnb.pipeline.keep", description="Keep a run's tables.")
    parser.add_argument("name", help="of the folder below runs")
    parser.add_argument("--folder", type=Path, default=Path(), help="the project's folder with the run")
    given = parser.parse_args(arguments)
    try:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", given.name):
            raise UserError(f"NAME: must be of lower-case letters, digits and . _ -, got {json.dumps(given.name)}")
        keep(given.folder, Path("runs") / given.name)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
