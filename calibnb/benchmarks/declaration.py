"""What a benchmark says of itself, from which its summaries, pictures, tables and claims are made.

Each folder of benchmarks has one ``BENCHMARK`` in its module ``benchmark.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from calibnb.evidence.claims import Chapter, Statistic, Table


@dataclass(frozen=True)
class Measure:
    """One number that is read of a table.

    Attributes
    ----------
    name : str
        Its column, or what the statistic calls it.
    label : str
        What pages call it, with its unit.
    better : {"lower", "higher", "neither"}
        Which way is better, as far as one is.
    given : str
        The measure that says how often it can be read; where that is rare it is not shown.
    pictured : bool
        Whether it has a panel in the benchmark's first picture.
    answers : bool
        Whether it is the share of answers that can be read as what was asked for.
    """

    name: str
    label: str
    better: Literal["lower", "higher", "neither"] = "neither"
    given: str = ""
    pictured: bool = False
    answers: bool = False


def as_it_is(frame: pd.DataFrame) -> pd.DataFrame:
    """The whole table."""
    return frame


def without(*columns: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The table without some columns, such as texts that no chapter shows."""
    return lambda frame: frame.drop(columns=list(columns))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes
    ----------
    name : str
        Name of its folder, its block of parameters, its results and its pages.
    title : str
        Title of its pages.
    table : Table
        Its main table.
    how : Statistic
        The statistic that sums it up, variant by variant.
    measures : tuple[Measure, ...]
        What the statistic is taken of.
    kept : Mapping[str, Callable[[DataFrame], DataFrame]]
        The tables that a committed run keeps, for its chapter, and how each is made small.
    groups : str
        The column by whose values the summary is split, such as suites; empty for none.
    claims : Chapter
        Rows, in sections that are walked through together.
    """

    name: str
    title: str
    table: Table
    how: Statistic
    measures: tuple[Measure, ...]
    claims: Chapter
    groups: str = ""
    kept: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = field(default_factory=dict)
