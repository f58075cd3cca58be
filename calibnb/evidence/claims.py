"""Claims and measurements as rows of a table, and what becomes of them: findings.

A row says which table is read, which statistic of it is taken, for which variants and against which others, in which
words, and by which rule it is judged. :func:`evaluate` computes a statistic once for all rows that share it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pandas as pd

from calibnb.evidence import comparisons, intervals, results, verdicts
from calibnb.evidence.runs import Run
from calibnb.evidence.wording import named
from calibnb.models.places import place

Finding = dict[str, str | float | None]

# What a method is held against, and what texts call it. The model as it comes is the reference: what is gained on it
# may be the format alone, which the control has learned, too; and away from numbers a method may seem to gain on a
# control that answers everything with numbers, by resembling the model as it comes.
CONTROLS = {"format": "the format control", "base": "the model as it comes"}
SEED = 0  # of every bootstrap: equal results are equal bytes


class Reader(Protocol):
    """Reads a table of some variants of a model; it raises FileNotFoundError where a file is missing."""

    def __call__(self, run: Run, model: str, variants: Sequence[str]) -> pd.DataFrame: ...


class Statistic(Protocol):
    """Sums up a variant's table, or compares it with another's.

    Parameters
    ----------
    own, other : DataFrame, DataFrame or None
        The tables; `other` is None for a value.
    measures : Sequence[str]
        What rows ask for; more may be returned.
    by : str
        Column whose groups are summed up each on its own; empty for none.
    resamples : int
        Resamples of the bootstrap.

    Returns
    -------
    DataFrame
        Rows of ``measure, value, low, high``, the column `by`, and what else texts name, in the order of the findings.
    """

    def __call__(
        self, own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
    ) -> pd.DataFrame: ...


def families(
    own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
) -> pd.DataFrame:
    """Family medians, or ratios of family medians; `by` is the split."""
    if by != "split":
        raise ValueError(f"families are summed up by split, not by {by!r}")
    if other is None:
        return comparisons.summarise(own, measures, resamples=resamples, seed=SEED)
    ratios = [
        comparisons.compare(own, other, measure, resamples=resamples, seed=SEED).assign(measure=measure)
        for measure in measures
    ]
    return pd.concat(ratios, ignore_index=True)


def by_split(
    own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
) -> pd.DataFrame:
    """Family medians or their ratios, with the names of the splits."""
    return named(families(own, other, measures, by=by, resamples=resamples))


@dataclass(frozen=True)
class Items:
    """Means over items, or means of paired differences.

    Attributes
    ----------
    item : str
        Column of what is resampled: a prompt, a question.
    """

    item: str

    def __call__(
        self, own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
    ) -> pd.DataFrame:
        found = []
        for group in own[by].unique() if by else [""]:
            part = _part(own, by, group)
            if other is None:
                rows = intervals.summarise_items(part, measures, item=self.item, resamples=resamples, seed=SEED)
            else:
                beside = _part(other, by, group)
                rows = intervals.compare_items(part, beside, measures, item=self.item, resamples=resamples, seed=SEED)
            found.append(rows.assign(**{by: group}) if by else rows)
        return pd.concat(found, ignore_index=True)


def as_stated(
    own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
) -> pd.DataFrame:
    """Values and intervals that the table itself states."""
    return own


def _units(found: Mapping[Hashable, Any]) -> int | None:
    """How many items or families with a value were resampled for a row of a statistic; None where none were."""
    if "items" in found:
        return int(found["items"]) - int(found.get("missing", 0))  # of a question that is answered none is missing
    return int(found["families"]) if "families" in found else None


def _part(frame: pd.DataFrame, by: str, group: object) -> pd.DataFrame:
    return frame[frame[by] == group] if by else frame


@dataclass(frozen=True)
class Table:
    """A table of a benchmark.

    Attributes
    ----------
    among : str
        The benchmark whose variants it is of, or ``methods``.
    read : Reader
        See :class:`Reader`.
    together : bool
        It is of all these variants at once: its rows name theirs, and nothing is compared.
    """

    among: str
    read: Reader
    together: bool = False


@dataclass(frozen=True)
class Parquet:
    """Reads ``<root>/<benchmark>/<slug>/<variant>/<table>.parquet``, all training seeds of the study.

    Attributes
    ----------
    prepare : Callable[[DataFrame], DataFrame]
        What is done to the table: columns that are derived from others.
    """

    benchmark: str
    table: str
    prepare: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame

    def __call__(self, run: Run, model: str, variants: Sequence[str]) -> pd.DataFrame:
        return self.prepare(results.measurements(run.folder(self.benchmark, model), variants, self.table, run.seeds))


@dataclass(frozen=True)
class Claim:
    """A claim, or a measurement, of every variant that a table holds.

    Texts are templates. They may name ``variant``, ``against`` and ``reference`` (what texts call the one that is
    compared with), ``slug`` (of the model), and the columns of the statistic's rows.

    Attributes
    ----------
    table, how, measure : Table, Statistic, str
        The statistic and which of its measures.
    groups : str
        Column whose groups have a finding each, such as a split; empty for none.
    of : {"each", "own", "other"} or tuple[str, ...]
        Which variants: ``each``, those that are ``own`` methods or the ``other`` ones, or the names themselves.
    against : str
        What it is compared with: a variant, ``controls`` (the format control and the model as it comes), or nothing
        (empty). A variant is not compared with itself.
    id, question, claim, unit, source : str
        What the finding says; a measurement has no claim.
    rule : verdicts.Rule
        The favourable side and its edge.
    determined : bool
        It rests on nW1 and is not determined where that of one of the two is not.
    alike : str
        Column of the share of bare numbers: two that are not alike in it are not comparable.
    rare, rare_against : str
        Column of the probability of a valid answer, and that of the other if it has another name: where that of one is
        rare, they are not comparable. Without another, both are columns of the variant's own.
    """

    table: Table
    how: Statistic
    measure: str
    id: str
    question: str
    unit: str
    source: str
    claim: str = ""
    rule: verdicts.Rule = verdicts.measured
    groups: str = ""
    of: Literal["each", "own", "other"] | tuple[str, ...] = "each"
    against: str = ""
    determined: bool = False
    alike: str = ""
    rare: str = ""
    rare_against: str = ""

    def __post_init__(self) -> None:
        if bool(self.claim) != (self.rule is not verdicts.measured):
            raise ValueError(f"{self.id}: a claim has a rule, and what has a rule is a claim")
        if not self.against and (self.alike or (self.rare and not self.rare_against)):
            raise ValueError(f"{self.id}: without another there is nothing to be comparable with")


# Rows that are walked through together, variant by variant; a chapter of them is told model by model.
Section = tuple[Claim, ...]
Chapter = tuple[Section, ...]


class _Evaluation:
    """Tables and statistics of one model, each read and computed once."""

    def __init__(self, rows: Sequence[Claim], run: Run, model: str) -> None:
        self.run, self.model, self.slug = run, model, place(model)
        self.tail = "" if model == run.models[0] else f"@{self.slug}"
        self.rows = rows
        self.frames: dict[tuple[Table, str], pd.DataFrame] = {}
        self.statistics: dict[tuple[Table, Statistic, str, str, str], pd.DataFrame] = {}

    def frame(self, table: Table, variant: str) -> pd.DataFrame:
        """The table of a variant, or of all (empty)."""
        if (table, variant) not in self.frames:
            variants = [variant] if variant else self.run.lists[table.among]
            self.frames[table, variant] = table.read(self.run, self.model, variants)
        return self.frames[table, variant]

    def statistic(self, table: Table, how: Statistic, by: str, variant: str, against: str) -> pd.DataFrame:
        """One statistic with all measures that any row asks of it."""
        key = (table, how, by, variant, against)
        if key not in self.statistics:
            asked = [
                row.measure
                for row in self.rows
                if (row.table, row.how, row.groups, bool(row.against)) == (table, how, by, bool(against))
            ]
            if not against and any(row.table == table and row.determined for row in self.rows):
                asked += ["nw1", "nw1_slack"]
            own, other = self.frame(table, variant), self.frame(table, against) if against else None
            measures = list(dict.fromkeys(asked))
            self.statistics[key] = how(own, other, measures, by=by, resamples=self.run.resamples)
        return self.statistics[key]

    def variants(self, table: Table) -> Sequence[str]:
        """Whose findings a table has: one empty name for all together."""
        return [""] if table.together else self.run.lists[table.among]

    def references(self, claim: Claim, variant: str) -> list[str]:
        """With which others a claim compares a variant: one empty name for none."""
        kind = "own" if variant in self.run.own else "other"
        if variant not in claim.of if isinstance(claim.of, tuple) else claim.of not in ("each", kind):
            return []
        if not claim.against:
            return [""]
        named = list(CONTROLS) if claim.against == "controls" else [claim.against]
        return [name for name in named if name in self.variants(claim.table) and name != variant]

    def section(self, rows: Section) -> Iterator[Finding]:
        """Findings variant by variant, each with one reference after the other, in the order of the statistics."""
        for variant in dict.fromkeys(name for claim in rows for name in self.variants(claim.table)):
            pairs = [(against, claim) for claim in rows for against in self.references(claim, variant)]
            for against, table, how, by in dict.fromkeys((a, c.table, c.how, c.groups) for a, c in pairs):
                for found in self.statistic(table, how, by, variant, against).to_dict("records"):
                    asked = (against, table, how, by, found["measure"])
                    for name, claim in pairs:
                        if (name, claim.table, claim.how, claim.groups, claim.measure) == asked:
                            yield self.finding(claim, variant, against, found)

    def finding(self, claim: Claim, variant: str, against: str, found: Mapping[Hashable, Any]) -> Finding:
        """What one row of a statistic says of one claim."""
        words = {"slug": self.slug, "variant": variant, "against": against}
        words |= {"reference": CONTROLS.get(against, against)} | {str(name): value for name, value in found.items()}
        interval = results.interval(intervals.Estimate(*(float(found[end]) for end in ("value", "low", "high"))))
        return {
            "id": claim.id.format_map(words) + self.tail,
            "question": claim.question.format_map(words),
            "claim": claim.claim.format_map(words),
            **interval,
            "unit": claim.unit.format_map(words),
            "source": claim.source.format_map(words),
            "verdict": verdicts.verdict(
                claim.rule,
                interval["low"],
                interval["high"],
                known=not claim.determined or self._determined(claim, variant, against, found),
                comparable=self._comparable(claim, variant, against, found),
                units=_units(found),
            ),
        }

    def _determined(self, claim: Claim, variant: str, against: str, found: Mapping[Hashable, Any]) -> bool:
        """Whether the nW1 of each of the two is known in the group of a finding."""
        group = found[claim.groups]
        values = [self.statistic(claim.table, claim.how, claim.groups, v, "") for v in (variant, against) if v]
        return all(bool(verdicts.determined_groups(value, [claim.groups])[group]) for value in values)

    def _comparable(self, claim: Claim, variant: str, against: str, found: Mapping[Hashable, Any]) -> bool:
        """Whether the two do the same thing in the group of a finding, as far as the claim asks for it."""

        def mean(column: str, name: str) -> float:
            return float(_part(self.frame(claim.table, name), claim.groups, found.get(claim.groups))[column].mean())

        def pair(own: str, other: str) -> tuple[float, float]:
            return mean(own, variant), mean(other or own, against or variant)

        unlike = claim.alike and not verdicts.alike(*pair(claim.alike, ""))
        return not unlike and not (claim.rare and verdicts.rare(*pair(claim.rare, claim.rare_against)))


def evaluate(chapters: Sequence[Chapter], run: Run) -> list[Finding]:
    """What was found, chapter by chapter, and in each model by model.

    Returns
    -------
    list[Finding]
        Findings of ``id, question, claim, value, low, high, unit, source, verdict``; a number that does not exist is
        None.
    """
    rows = [claim for chapter in chapters for section in chapter for claim in section]
    models = [_Evaluation(rows, run, model) for model in run.models]
    return [
        finding for chapter in chapters for model in models for section in chapter for finding in model.section(section)
    ]
