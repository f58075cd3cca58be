"""Runs of the study: the reader's own, and those whose tables are committed, side by side.

A run is a study that was carried out on some models: its tables of measurements below one folder, and what is needed to
read them. A committed one lies in ``runs/<name>`` with ``run.json``, where it says where it comes from, and its tables
below ``results``, laid out as the pipeline writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibnb.errors import UserError
from calibnb.models.places import place
from calibnb.training.params import TRAINED, FinetuneParams, read_methods
from calibnb.yaml_files import read

ABOUT = "run.json"


@dataclass(frozen=True)
class Run:
    """What a study has measured.

    Attributes
    ----------
    root : Path
        Folder of the results.
    models : Sequence[str]
        Names; findings of the first have the plain ids, those of another end in ``@`` and its place.
    seeds : Sequence[int]
        Seeds of training; measurements of others are left out.
    lists : Mapping[str, Sequence[str]]
        Variants by the name of their benchmark, and the trained methods as ``methods``.
    methods : Mapping[str, FinetuneParams]
        The trained ones, and what they are.
    resamples : int
        Resamples of every bootstrap.
    name : str
        Name of the folder of a committed run; empty for the reader's own.
    """

    root: Path
    models: Sequence[str]
    seeds: Sequence[int]
    lists: Mapping[str, Sequence[str]]
    methods: Mapping[str, FinetuneParams]
    resamples: int
    name: str = ""

    @property
    def own(self) -> list[str]:
        """Methods that learn to answer with their prompt's own law: all but controls."""
        return [name for name, how in self.methods.items() if how.completions == "own"]

    @property
    def mixed(self) -> list[str]:
        """Methods with ordinary examples in training."""
        return [name for name, how in self.methods.items() if how.mixture]

    def folder(self, benchmark: str, model: str) -> Path:
        """Where a benchmark's results of a model lie."""
        return self.root / benchmark / place(model)

    def asked(self, benchmark: str) -> dict[str, Any]:
        """The block of a benchmark in the parameters of this run, as they are written."""
        block: dict[str, Any] = read(self.root.parent / "params.yaml")["benchmarks"][benchmark]
        return block

    def label(self, name: str) -> str:
        """What pages call a model or a method of this run."""
        return f"{name} ({self.name})" if self.name else name


def of_study(study: Any, root: Path = Path("results")) -> Run:
    """The run of a study in the working directory.

    Parameters
    ----------
    study
        Loaded parameters, ``benchmarks`` (those that are asked for), ``bootstrap, models, seeds, variants`` among them.
    root : Path
        Folder of the results, beside which the stage `items` has written what is trained.
    """
    methods = read_methods(root.parent / TRAINED)
    lists = {name: block.measured(study.variants) for name, block in study.benchmarks}
    return Run(root, study.models, study.seeds, lists | {"methods": list(methods)}, methods, study.bootstrap)


def committed(folder: Path) -> list[Run]:
    """The committed runs below a folder, in the order of their names.

    Raises
    ------
    UserError
        For a run without a readable ``run.json``.
    """
    found = []
    for path in sorted(folder.glob(f"*/{ABOUT}")):
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            found.append(
                Run(
                    path.parent / "results",
                    about["models"],
                    about["seeds"],
                    about["measured"],
                    {name: FinetuneParams.model_validate(how) for name, how in about["methods"].items()},
                    about["bootstrap"],
                    name=path.parent.name,
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: must be json with the keys of a run, which {error!r} keeps it from") from None
    return found


def provenance(folder: Path) -> dict[str, Any]:
    """Where a committed run comes from, as its ``run.json`` says."""
    about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["provenance"]
    return about
