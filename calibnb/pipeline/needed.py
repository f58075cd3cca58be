"""Run what a model is prepared with, where something of the study needs it.

    python -m calibnb.pipeline.needed ordinary|temperature MODEL

The model's own answers to ordinary prompts are there for methods that mix them in, the fitted temperature for the
variant of that name. Where the study has none, the stage leaves empty outputs, and no notebook runs. Who needs it
stands in ``items/needed``, so that a stage depends on the answer and not on every key that it follows from. Each
method has a file of answers, empty if it mixes none in: one more that does trains none of the others anew.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from calibnb import yaml_files
from calibnb.errors import UserError
from calibnb.models.places import own_answers, place
from calibnb.pipeline import warm

FOLDER = Path("items/needed")
EMPTY_PAGE = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n'
NOTHING_COUNTED = '{"tflop": 0.0}\n'


def leave(outputs: Mapping[Path, str]) -> int:
    """Write what stands in the place of outputs that nothing asks for; returns an exit status of 0."""
    for path, text in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def run(notebook: str, page: Path, **parameters: str) -> int:
    """Execute a notebook with parameters, in a warm process if one waits; returns the exit status."""
    given = [notebook, str(page), *(word for name, value in parameters.items() for word in ("-p", name, value))]
    warm.hand_over("calibnb.pipeline.execute", given)
    from calibnb.pipeline import execute  # heavy, and what is not asked for ends without it

    return execute.main(given)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    stage, model = sys.argv[1:] if arguments is None else arguments
    page = Path("book/executed") / stage / f"{place(model)}.ipynb"
    try:
        needed = yaml_files.read(FOLDER / f"{stage}.yaml")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if any(needed.values()):
        return run(f"notebooks/models/{stage}.ipynb", page, model=model)
    left = {
        "ordinary": {own_answers(model, method): "" for method in needed},
        "temperature": {Path("variants") / place(model) / "temperature" / "nothing.txt": "No variant needs it.\n"},
    }[stage]
    return leave(left | {Path("results") / stage / f"{place(model)}.json": NOTHING_COUNTED, page: EMPTY_PAGE})


if __name__ == "__main__":
    sys.exit(main())
