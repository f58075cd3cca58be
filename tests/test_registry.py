"""Benchmarks are folders, and each is whole."""

from __future__ import annotations

from notebook_code import ROOT

from calibnb.benchmarks import registry


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
