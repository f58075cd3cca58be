"""What the chapters on benchmarks have in common: their runs, their summaries, their claims.

Which measures there are, what they are called and what is claimed of them, a benchmark says itself
(:mod:`calibnb.benchmarks.declaration`); here that becomes frames, pictures and tables, over all runs that are present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from calibnb.benchmarks.declaration import Benchmark
from calibnb.book import outcomes, page, style, tables
from calibnb.book.figures import points
from calibnb.evidence import results, runs
from calibnb.evidence.runs import Run

Frame = pd.DataFrame
NOTHING = "No run that is present has measured this."


def present(study: Any, committed: str | Path, *, own: bool) -> list[Run]:
    """The runs that a page shows: the reader's own, then the committed ones.

    Parameters
    ----------
    study
        Loaded parameters, as `runs.of_study` takes them.
    committed : str or Path
        The folder of committed runs.
    own : bool
        Whether the reader has a run of the own; where only committed tables are read there is none.
    """
    return [*([runs.of_study(study)] if own else []), *runs.committed(Path(committed))]


def of_each_run(shown: Sequence[Run], read: Callable[[Run], Frame]) -> tuple[Frame, list[str]]:
    """A frame over runs, their parts below each other, and a line for every committed run that has no such tables.

    Raises
    ------
    FileNotFoundError
        Where the reader's own run has none; the pipeline makes them first.
    """
    parts, notes = _read(shown, read)
    return _joined(parts), notes


def _read(shown: Sequence[Run], read: Callable[[Run], Frame]) -> tuple[list[tuple[Run, Frame]], list[str]]:
    """The runs that can be read with their frames, and a line on each of the others."""
    parts, notes = [], []
    for run in shown:
        try:
            parts.append((run, read(run)))
        except (FileNotFoundError, KeyError) as error:
            if not run.name:
                raise
            notes.append(
                f"The run {run.name} has no tables for this page, or older ones ({type(error).__name__}: {error})."
            )
    return parts, notes


def _joined(parts: Sequence[tuple[Run, Frame]]) -> Frame:
    """The frames of runs below each other."""
    return pd.concat([part for _, part in parts], ignore_index=True) if parts else pd.DataFrame()


class Chapter:
    """A benchmark over all runs that are present.

    Where none has its tables, frames have no rows, pictures and answers say so: pages need not ask.

    Attributes
    ----------
    runs
        Those that have its tables. notes: a line on what is shown, and one on each that has not.
    summary
        Rows of ``model, variant, measure, value, low, high`` and the column of its groups; ``model`` is what pages call
        a model of a run. What is read given something rare has no value.
    """

    def __init__(self, benchmark: Benchmark, shown: Sequence[Run]) -> None:
        self.benchmark = benchmark
        parts, self.notes = _read(shown, self._summarise)
        self.runs = [run for run, _ in parts]
        groups = [benchmark.groups] if benchmark.groups else []
        empty = pd.DataFrame(columns=["model", "variant", *groups, "measure", "value", "low", "high"])
        self.summary = _joined(parts) if parts else empty
        names = ", ".join(f"`{run.label(model)}`" for run in self.runs for model in run.models)
        self.notes.insert(0, f"Shown: {names or 'no run'}.")

    def _variants(self, run: Run) -> Sequence[str]:
        return run.lists[self.benchmark.name]

    def _summarise(self, run: Run) -> Frame:
        """The summary of one run; FileNotFoundError where it has not all tables that claims rest on."""
        about, parts = self.benchmark, []
        names = [measure.name for measure in about.measures]
        judged = dict.fromkeys(claim.table for section in about.claims for claim in section)
        for model in run.models:
            for tested in judged:
                among = run.lists[tested.among]
                for variants in [among] if tested.together else [[variant] for variant in among]:
                    tested.read(run, model, variants)
            for variant in [""] if about.table.together else self._variants(run):
                table = about.table.read(run, model, [variant] if variant else self._variants(run))
                found = about.how(table, None, names, by=about.groups, resamples=run.resamples)
                parts.append(found.assign(model=run.label(model), **({"variant": variant} if variant else {})))
        return self._readable(pd.concat(parts, ignore_index=True))

    def _readable(self, found: Frame) -> Frame:
        """Without the values of what is read given something rare."""
        keys = ["model", "variant", *([self.benchmark.groups] if self.benchmark.groups else [])]
        if "benchmark" in found:  # several benchmarks in one summary: measures are called by both
            found = found.assign(measure=found["benchmark"] + "." + found["measure"])
        for measure in self.benchmark.measures:
            if measure.given:
                rates = found[found["measure"] == measure.given].set_index(keys)["value"]
                here = found["measure"] == measure.name
                rate = rates.reindex(pd.MultiIndex.from_frame(found.loc[here, keys])).to_numpy(float)
                rare = found.index[here][rate < results.RARE]
                found.loc[rare, ["value", "low", "high"]] = float("nan")
        return found

    @property
    def variants(self) -> list[str]:
        """Every variant of any run, in the order of pictures."""
        return style.in_order(self.summary["variant"].tolist())

    @property
    def labels(self) -> list[str]:
        """What pages call the models of all runs."""
        return list(dict.fromkeys(self.summary["model"]))

    def models(self) -> Iterator[tuple[Run, str]]:
        """Every model of every run."""
        return ((run, model) for run in self.runs for model in run.models)

    def read(self, read: Callable[[Run], Frame]) -> Frame:
        """A frame over the runs as :func:`of_each_run` has it; its lines go to the notes, which the page ends in."""
        found, notes = of_each_run(self.runs, read)
        self.notes += [note for note in notes if note not in self.notes]
        return found

    def frame(self, table: str) -> Frame:
        """A table of measurements over all runs that have it, with ``model`` as pages call it."""

        def of_run(run: Run) -> Frame:
            name, variants = self.benchmark.name, self._variants(run)
            parts = [
                results.measurements(run.folder(name, model), variants, table, run.seeds).assign(model=run.label(model))
                for model in run.models
            ]
            return pd.concat(parts, ignore_index=True)

        found = self.read(of_run)
        return found if len(found.columns) else pd.DataFrame(columns=["model", "variant", "seed"])

    def each(self, frame: Frame, sum_up: Callable[[Frame], Frame], *, by: str = "") -> Frame:
        """What becomes of every model's and variant's part of a frame.

        Parameters
        ----------
        frame : Frame
            Rows with ``model, variant``.
        sum_up : Callable[[Frame], Frame]
            Makes rows of ``value, low, high``, and what else a picture needs, of a part.
        by : str
            A column whose values have a part each.

        Returns
        -------
        Frame
            The rows with ``model, variant`` and the column `by`.
        """
        keys = ["model", "variant", *([by] if by else [])]
        groups = frame.groupby(keys, sort=False) if len(frame) else ()
        parts = [sum_up(part).assign(**dict(zip(keys, map(str, key), strict=True))) for key, part in groups]
        empty = pd.DataFrame(columns=[*keys, "measure", "value", "low", "high"])
        whole = pd.concat(parts, ignore_index=True) if parts else empty
        return whole.astype({name: float for name in ("value", "low", "high") if name in whole})  # without rows, too

    def answer(self, say: Callable[[str], str]) -> HTML:
        """What was found, a sentence of HTML for every model, the first of which is seen at once."""
        return page.answer(*(self._said(say) or [NOTHING]))

    def shows(self, say: Callable[[str], str]) -> HTML:
        """What else a page shows: a paragraph of HTML for every model."""
        return page.paragraphs(*(self._said(say) or [NOTHING]))

    def _said(self, say: Callable[[str], str]) -> list[str]:
        return [f"<code>{escape(label)}</code>: {say(label)}" for label in self.labels]

    def numbers(
        self, model: str, measure: str, group: str = "", *, digits: int = 2, scale: float = 1.0, unit: str = ""
    ) -> dict[str, str]:
        """A measure of a model's variants as HTML that shows its interval when pointed at.

        Parameters
        ----------
        model : str
            What pages call it.
        measure, group : str
            Which rows of the summary.
        digits : int
            Decimal places.
        scale : float
            What values are multiplied by.
        unit : str
            What stands behind each.

        Returns
        -------
        dict[str, str]
            By variant; one of which it cannot be read is missing.
        """
        here = self.summary[(self.summary["model"] == model) & (self.summary["measure"] == measure)]
        if group:
            here = here[here[self.benchmark.groups] == group]
        rows = here[here["value"].notna()]
        ends = scale * rows[["value", "low", "high"]].to_numpy(float)
        return {
            variant: page.number(value, low, high, digits) + unit
            for variant, (value, low, high) in zip(rows["variant"], ends.tolist(), strict=True)
        }

    def shares(self, model: str, measure: str, group: str = "") -> dict[str, str]:
        """Probabilities or shares as :meth:`numbers` has them, in per cent."""
        return self.numbers(model, measure, group, digits=0, scale=100, unit=f"{results.NBSP}%")

    def verdicts(self, model: str, finding: str) -> dict[str, str]:
        """Verdicts on a claim by variant, in the order of the variants.

        Parameters
        ----------
        model : str
            What pages call it.
        finding : str
            The id of the claim's finding, in which ``{variant}`` stands for a variant.
        """
        return outcomes.verdicts(self.judged(), model, finding, self.variants)

    def quoted(self, model: str, finding: str, digits: int = 2) -> dict[str, str]:
        """Values of findings by variant as HTML that shows its interval: `finding` as in :meth:`verdicts`."""
        rows = outcomes.by_variant(self.judged(), model, finding, self.variants)
        return {
            variant: page.number(float(row["value"]), float(row["low"]), float(row["high"]), digits)
            for variant, row in rows.items()
            if pd.notna(row["value"])
        }

    def outcomes(self, model: str, finding: str, better: str, worse: str) -> str:
        """What became of a claim beside the model as it comes and beside the control, as far as it is made of them.

        Parameters
        ----------
        model : str
            What pages call it.
        finding : str
            The id of the claim's finding, with ``{variant}`` and ``{against}``.
        better, worse : str
            As :func:`page.outcomes` takes them, part of whose sentence is returned.
        """
        beside = {name: self.verdicts(model, finding.replace("{against}", name)) for name in ("base", "format")}
        return page.outcomes(beside, better, worse) or (
            "no claim compares a calibrated variant with the model as it comes or the control"
        )

    def hard_or_soft(self, model: str, finding: str, better: str, worse: str) -> str:
        """What became of a claim that hard is better than soft, as a sentence; empty where it is not made."""
        verdicts = self.verdicts(model, finding.replace("{against}", "soft"))
        text = page.outcomes({"soft": verdicts}, better, worse)
        return f" {text[0].upper()}{text[1:]}." if text else ""

    def spoken(self, measure: str, digits: int = 2) -> str:
        """A measure of all variants in words, for those who do not see its picture."""
        here = self.summary[self.summary["measure"] == measure]
        groups = [self.benchmark.groups] if self.benchmark.groups else []
        if groups == ["split"]:
            here = here.assign(split=here["split"].map(style.SPLITS))
        return page.spoken(here, ["model", *groups], digits)

    def folds(self, *more: HTML, digits: int = 2) -> HTML:
        """The end of a page: the claims, the table of all measures, what else it has, and which runs it shows."""
        here = self.summary["measure"].isin([measure.name for measure in self.benchmark.measures])
        count = self.summary["measure"][here].nunique()
        title = f"All measures ({count}) of all variants ({len(self.variants)}), with 95 % intervals"
        return page.together(
            *([outcomes.claims_fold(self.judged()), page.fold(title, self.table(digits))] if self.runs else []),
            *more,
            runs_fold(self.notes),
        )

    def picture(self, columns: int = 3) -> Figure:
        """The pictured measures with their intervals, a panel each."""
        named = {m.name: m.label for m in self.benchmark.measures if m.pictured}
        found = self.summary[self.summary["value"].notna()]
        labels = {name: label for name, label in named.items() if name in set(found["measure"])}
        return style.each(
            lambda part: points.measures(part, variants=_of(part), labels=labels, columns=columns), self.summary
        )

    def dots(self, measure: str, *, together: str | None = None, reference: float = 1.0, log: bool = False) -> Figure:
        """One measure by groups, a row a group with a dot for every variant."""
        (label,) = (m.label for m in self.benchmark.measures if m.name == measure)
        found = self.summary[self.summary["measure"] == measure].rename(columns={self.benchmark.groups: "family"})
        return style.each(
            lambda part: points.per_family_dots(
                part, variants=_of(part), label=label, log=log, reference=reference, together=together
            ),
            found,
        )

    def table(self, digits: int = 2) -> HTML:
        """All measures of all variants with their intervals."""
        numbers = self.summary[["value", "low", "high"]].astype(float).itertuples(index=False)
        text = self.summary.assign(
            text=[tables.with_interval(row[0], row[1], row[2], digits) for row in numbers],
            measure=self.summary["measure"].map({m.name: m.label for m in self.benchmark.measures}),
        )
        rows = [
            *(["model"] if len(self.labels) > 1 else []),
            *([self.benchmark.groups] if self.benchmark.groups else []),
        ]
        text = text.dropna(subset=["measure"])
        if self.benchmark.groups == "split":
            text["split"] = text["split"].map(style.SPLITS)
        wide = text.pivot_table(
            index=[*rows, "measure"], columns="variant", values="text", aggfunc="first", sort=False
        )[self.variants]
        return tables.table(wide.fillna("").reset_index())

    def judged(self) -> Frame:
        """The benchmark's findings in every run, with ``model`` as pages call it.

        Those of the reader's own run are written to ``results/findings``, where the page of all findings gathers them.
        """
        return self._judged

    @cached_property
    def _judged(self) -> Frame:
        return outcomes.judged(self.benchmark.name, (self.benchmark.claims,), self.runs)


def _of(part: Frame) -> list[str]:
    """The variants of a frame in their order."""
    return list(dict.fromkeys(part["variant"]))


def runs_fold(notes: Sequence[str]) -> HTML:
    """Which runs a page shows, and which it cannot, in a fold."""
    return page.fold("Runs on this page", *(f"<p>{page.code(note)}</p>" for note in notes))
