"""The first page: the picture, what was found in a sentence a model, in three cards, and beside the paper's claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

import pandas as pd
from IPython.display import HTML

from calibnb.book import page, style
from calibnb.book.figures.curves import Overlay
from calibnb.book.figures.examples import Example
from calibnb.book.page import Card
from calibnb.evidence import comparisons, paper, verdicts
from calibnb.evidence.claims import CONTROLS
from calibnb.evidence.paper import Evidence, Findings
from calibnb.evidence.results import NBSP
from calibnb.laws import canonical
from calibnb.laws.specs import Spec

WHERE = {
    "in_range": "between the settings trained on",
    "unseen": "on unseen parameters",
    "held_out": "on held-out families",
}
SHORT = {"supported": "Yes", "supported in part": "In part", "mixed": "In part", "refuted": "No"}
_ENDS = ("value", "low", "high")
ELSEWHERE = ("openended", "positions", "novelty", "language", "mixing", "sequences")  # where nothing was trained

# What is said of a gain, by what the findings say together.
GAIN = {
    "supported": "a gain is shown",
    "supported in part": "a gain is shown for some of it",
    "mixed": "gains and losses are shown",
    "open": "no difference is shown",
    "refuted in part": "a loss is shown for some of it",
    "refuted": "a loss is shown",
    "not determined": "the answers are too rarely numbers to tell",
    "not comparable": "the answers are too different to compare",
    "not measured": "it was not measured",
}


def number(row: Mapping[str, float | None], scale: float = 1.0, digits: int = 2) -> str:
    """A finding's value as HTML, with its interval where there is one."""
    value, low, high = (math.nan if row[end] is None else scale * float(row[end] or 0) for end in _ENDS)
    return page.number(value, low, high, digits)


def typical(
    settings: pd.DataFrame, laws: pd.DataFrame, asked: Iterable[Spec], *, before: str, after: Sequence[str]
) -> list[Example]:
    """The setting of each split that stands for it, with its answers before and after calibration.

    It is that whose nW1 the first of the calibrated variants changes by the median factor; all is of the first adapter
    of a method.

    Parameters
    ----------
    settings : DataFrame
        Rows of ``variant, seed, split, family, label, nw1, nw1_slack``.
    laws : DataFrame
        Rows of ``variant, seed, split, label, value, mass``: answers given a number.
    asked : Iterable[Spec]
        The settings that were measured.
    before : str
        The variant that is the reference.
    after : Sequence[str]
        The calibrated ones; without any, the reference alone is shown.
    """
    settings, laws = (table[table["seed"] == _first_seed(table)] for table in (settings, laws))
    of = {str(variant): part for variant, part in settings.groupby("variant")}
    specs = {(str(spec.split), spec.label): spec for spec in asked}
    out = []
    for split, label in comparisons.typical(of[after[0] if after else before], of[before], "nw1").items():
        here, answers = (t[(t["split"] == split) & (t["label"] == label)] for t in (settings, laws))
        distances = {
            variant: nw1 if verdicts.determined(nw1, slack) else math.nan
            for variant, nw1, slack in here[["variant", "nw1", "nw1_slack"]].itertuples(index=False)
        }
        spec = specs[split, label]
        drawn = {str(v): (part["value"].to_numpy(), part["mass"].to_numpy()) for v, part in answers.groupby("variant")}
        overlay = Overlay(label, spec.law, *canonical.quantile_range(spec.law), drawn)
        out.append(Example(style.SPLITS[split], overlay, distances))
    return out


def spoken(shown: Iterable[Example]) -> str:
    """The distances of settings in words, for those who do not see the picture."""
    return " ".join(
        f"{example.heading}, {example.setting.title}: nW1 "
        + ", ".join(f"{variant} {nw1:.2f}" for variant, nw1 in example.distances.items() if not math.isnan(nw1))
        + "."
        for example in shown
    )


def _first_seed(table: pd.DataFrame) -> pd.Series[int]:
    """Of every row, the lowest seed of its variant."""
    return table.groupby("variant")["seed"].transform("min")


def answer(model: str, found: Findings) -> str:
    """Whether calibration helps, in the training ranges and outside them, for one model, in a sentence of HTML."""
    every = [verdict for split in WHERE for line in paper.fidelity(split) for verdict in _made(line, found)]
    word = SHORT.get(paper.together(every), "Not shown")
    places: dict[str, list[str]] = {}
    for split, where in WHERE.items():
        places.setdefault(_told(split, found), []).append(where)
    said = "; ".join(f"{page.listed(where)} {text}" for text, where in places.items())
    return f"<strong>{word}</strong> for <code>{escape(model)}</code>: {said}."


def _told(split: str, found: Findings) -> str:
    """What is shown on a split: of all at once where they agree, else who comes closer than what, or less close."""
    verdicts: dict[str, dict[str, str]] = {}
    for reference in paper.REFERENCES:
        for method in paper.METHODS:
            if (name := f"structured.{split}.{method}.w1_vs_{reference}") in found:
                verdicts.setdefault(reference, {})[method] = str(found[name]["verdict"])
    kinds = [verdict for here in verdicts.values() for verdict in here.values()]
    together = paper.together(kinds)
    if together == "supported":
        references = [CONTROLS[reference] for reference in verdicts]
        return f"calibrated answers come closer to the target than those of {page.listed(references)}"
    if len(set(kinds)) < 2:
        return GAIN[together]
    sides = {paper.SUPPORTED: "closer to the target than", paper.REFUTED: "less close to the target than"}
    parts = [
        f"{page.listed(who)} {'come' if len(who) > 1 else 'comes'} {words} "
        f"{page.listed([CONTROLS[reference] for reference in beside])}"
        for side, words in sides.items()
        for who, beside in page.grouped(verdicts, side)
    ]
    if not parts:
        return GAIN[together]
    return ", and ".join([*parts, *(["no other difference is shown"] if "open" in kinds else [])])


def cards(found: Findings) -> HTML:
    """Whether it works where it was trained, whether it carries over, and what it costs, for one model."""
    lines = {reference: paper.against("in_range", reference) for reference in paper.REFERENCES}
    made = [reference for reference, line in lines.items() if _made(line, found)]
    reference = made[0] if made else "base"
    near, price = lines[reference], paper.COST
    return page.cards(
        [
            Card(
                "Does it work?",
                _numbers(near, found),
                f"{_methods(near, found)}nW1 as a multiple of that of {CONTROLS[reference]}, between the settings "
                f"trained on: {GAIN[paper.together(_made(near, found))]}.",
                "structured.html",
            ),
            _carried_over(found),
            Card(
                "What does it cost?",
                _numbers(price, found, 100, 1),
                f"{_methods(price, found)}points of right answers on small tasks, against the model as it comes: "
                f"{GAIN[paper.together([paper.opposite(v) for v in _made(price, found)])]}.",
                "capability.html",
            ),
        ]
    )


def _present(line: Evidence, found: Findings) -> Iterator[tuple[str, str]]:
    """The findings of a line that were made: what tells each apart, and its id."""
    return ((what, name) for what, name in line.findings.items() if name in found)


def _made(line: Evidence, found: Findings) -> list[str]:
    """The verdicts of a line that were made: a study may have one of two methods."""
    return [verdict for verdict in line.verdicts(found) if verdict != paper.UNMEASURED]


def _methods(line: Evidence, found: Findings) -> str:
    names = " · ".join(what for what, _ in _present(line, found))
    return f"{names}: " if names else ""


def _numbers(line: Evidence, found: Findings, scale: float = 1.0, digits: int = 2) -> str:
    return " · ".join(number(found[name], scale, digits) for _, name in _present(line, found)) or "–"


def _carried_over(found: Findings) -> Card:
    """How often the two methods gain where nothing was trained."""
    verdicts = [
        str(row["verdict"])
        for name, row in found.items()
        if row["claim"] and name.split(".")[0] in ELSEWHERE and name.endswith("_vs_base")
        if set(name.split(".")) & set(paper.METHODS)
    ]
    gains, losses = (verdicts.count(kind) for kind in (paper.SUPPORTED, paper.REFUTED))
    return Card(
        "Does it carry over?",
        f"{gains} of {len(verdicts)}" if verdicts else "–",
        "comparisons with the model as it comes show a gain where nothing was trained: words, letters, lists, ordinary "
        f"language. A loss: {losses}."
        if verdicts
        else "not measured",
        "findings.html",
    )


def beside_the_paper(everything: Mapping[str, Findings]) -> HTML:
    """The original study's claims, a row each, and what the findings of each model say of them.

    Parameters
    ----------
    everything : Mapping[str, Findings]
        Findings by what pages call a model.
    """
    head = "".join(f"<th>{text}</th>" for text in ("The paper's claim", "reported for", *map(_code, everything)))
    rows = "\n".join(
        f'<tr><td><a href="{claim.page}.html">{escape(claim.claim)}</a><br/><small>{escape(claim.numbers)}</small></td>'
        f"<td>{escape(claim.reported)}</td>"
        + "".join(f"<td>{_cell(claim, found)}</td>" for found in everything.values())
        + "</tr>"
        for claim in paper.CLAIMS
    )
    table = f'<table class="paper"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'
    return HTML(table)  # type: ignore[no-untyped-call]


def _code(name: str) -> str:
    return f"<code>{escape(name)}</code>"


def _cell(claim: paper.PaperClaim, found: Findings) -> str:
    """The verdict of a model's findings, and below it their numbers."""
    lines = [f"<strong>{claim.verdict(found)}</strong>"]
    for line in claim.evidence:
        shown = [f"{what}{NBSP}{number(found[name])}".strip(NBSP) for what, name in _present(line, found)]
        if shown:
            lines.append(f"{escape(line.what)}: {', '.join(shown)}" if line.what else ", ".join(shown))
    return "<br/>".join(lines)
