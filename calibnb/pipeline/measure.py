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
from calibnb.pipeline import needed


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
        return needed.run(f"notebooks/measure/{benchmark}.ipynb", page, model=model, variant=variant)
    return needed.leave(
        {
            tables / "nothing.txt": "This variant is not measured on this benchmark.\n",
            tables.with_name(f"{variant}.json"): "{}\n",
            page: needed.EMPTY_PAGE,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
