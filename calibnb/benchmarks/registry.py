"""Which benchmarks there are: a folder beside this file each, with modules whose names say what they hold.

    params.py      its block of parameters, a `BenchmarkParams`
    items.py       what it asks and needs beside a model, written as files before anything is measured (optional)
    benchmark.py   how its measures are called and read, and its claims

Nothing is listed by hand: a folder more is a benchmark more.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from calibnb.benchmarks.declaration import Benchmark
from calibnb.benchmarks.params import BenchmarkParams

# What a stage runs that goes through all benchmarks is derived from these texts, too (`pipeline.dependence`).
PARAMS, ITEMS, BENCHMARK = "*/params.py", "*/items.py", "*/benchmark.py"


def modules(kind: str) -> dict[str, ModuleType]:
    """The modules of a kind by the benchmark's name, in the order of names."""
    files = sorted(Path(__file__).parent.glob(kind))
    return {path.parent.name: import_module(f"{__package__}.{path.parent.name}.{path.stem}") for path in files}


def benchmarks() -> dict[str, Benchmark]:
    """What every benchmark says of itself."""
    return {name: module.BENCHMARK for name, module in modules(BENCHMARK).items()}


@cache
def blocks() -> dict[str, type[BenchmarkParams]]:
    """The type of every benchmark's block of parameters."""
    return {
        name: next(
            kind
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, BenchmarkParams) and kind.__module__ == module.__name__
        )
        for name, module in modules(PARAMS).items()
    }
