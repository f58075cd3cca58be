"""Measure one variant of a model on one benchmark, by running ``notebooks/measure/<benchmark>.ipynb``.

    python -m calibnb.pipeline.measure BENCHMARK MODEL VARIANT

Not every benchmark is measured on every variant (its ``variants`` in params.yaml): where one is not, what the stage
leaves says so and is empty else, and no notebook runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from calibnb import yaml_files
from calibnb.errors import UserError
from calibnb.models.places import place
from calibnb.pipeline import warm


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    benchmark, model, variant = sys.argv[1:] if arguments is None else arguments
    place_of_variant = f"{benchmark}/{place(model)}/{variant}"
    tables, page = Path("results") / place_of_variant, Path("book/executed/measure") / f"{place_of_variant}.ipynb"
    try:
        asked = yaml_files.read("params.yaml")["benchmarks"][benchmark]["variants"]
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if asked == "all" or variant in asked:
        given = [f"notebooks/measure/{benchmark}.ipynb", str(page), "-p", "model", model, "-p", "variant", variant]
        warm.hand_over("calibnb.pipeline.execute", given)
        from calibnb.pipeline import execute  # heavy, and what is not asked for ends without it

        return execute.main(given)
    tables.mkdir(parents=True, exist_ok=True)
    page.parent.mkdir(parents=True, exist_ok=True)
    for path, text in (
        (tables / "nothing.txt", "This variant is not measured on this benchmark.\n"),
        (tables.with_name(f"{variant}.json"), "{}\n"),
        (page, '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n'),
    ):
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
