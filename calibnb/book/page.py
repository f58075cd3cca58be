"""Pieces of a page beside its tables: the answer in a line, numbers, pictures in words, cards, and what is folded away.

A page says things in words and shows the numbers behind them on demand: the interval of a number when it is pointed at,
tables in a fold that opens on a click. How they look is in book/_static/calibnb.css.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
from IPython.core.pylabtools import retina_figure
from IPython.display import HTML
from matplotlib.figure import Figure

from calibnb.evidence.claims import CONTROLS
from calibnb.evidence.results import NBSP


def _html(text: str) -> HTML:
    return HTML(text)  # type: ignore[no-untyped-call]


def number(value: float, low: float, high: float, digits: int = 2) -> str:
    """A value as HTML whose 95 % interval shows when it is pointed at; a dash for a value that does not exist."""
    if math.isnan(value):
        return "–"
    value, low, high = (round(x, digits) + 0.0 for x in (value, low, high))  # no -0.00
    shown = f"{value:.{digits}f}"
    if math.isnan(low) or math.isnan(high):
        return shown
    interval = f"95{NBSP}% interval: {low:.{digits}f} to {high:.{digits}f}"
    return f'<span class="number" title="{interval}">{shown}</span>'


def answer(sentence: str, *others: str) -> HTML:
    """What a page found, in one sentence of HTML below its question; those on other models and runs are in a fold."""
    found = _html(f'<p class="answer">{sentence}</p>')
    title = f"What was found with other models and runs ({len(others)})"
    return together(found, fold(title, paragraphs(*others))) if others else found


def paragraphs(*texts: str) -> HTML:
    """Sentences of HTML, a paragraph each."""
    return _html("\n".join(f"<p>{text}</p>" for text in texts))


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: ``soft, hard and mixed``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def values(numbers: Mapping[str, str], most: int = 4) -> str:
    """Numbers by variant as part of a sentence of HTML: ``1.85 as the model comes, 1.01 with soft``.

    The first `most` alone, as many as a sentence can hold; the picture has the others.
    """
    names = {"base": "as the model comes", "format": "with the format control"}
    texts = [f"{text} {names.get(name, f'with <em>{escape(name)}</em>')}" for name, text in numbers.items()]
    return listed(texts[:most]) if texts else "not known"


# What is said of verdicts that take no side: after others that do, and of some references.
NO_SIDE = {
    "open": ("no difference is shown", "no difference from {} is shown"),
    "not determined": ("the difference is not determined", "the difference from {} is not determined"),
    "not comparable": ("nothing can be compared", "nothing can be compared with {}"),
}


def outcomes(verdicts: Mapping[str, Mapping[str, str]], better: str, worse: str) -> str:
    """What became of a claim that variants better something, as part of a sentence of HTML.

    Parameters
    ----------
    verdicts : Mapping[str, Mapping[str, str]]
        The variant that they are compared with -> variant -> the verdict on its claim.
    better, worse : str
        What is so where the claim is supported, and where it is refuted, up to the *than*.

    Returns
    -------
    str
        Such as ``with soft, answers lie closer to the law than with the model as it comes and the format control;
        otherwise no difference is shown``. Where a verdict takes a side, those of whom none does are not named, nor is
        anybody where it is said of all. Empty where nothing is compared.
    """
    kinds = {verdict for found in verdicts.values() for verdict in found.values()}
    everyone = {name for found in verdicts.values() for name in found}
    parts = []
    for verdict, text in (("supported", better), ("refuted", worse)):
        words = f"{text} "
        for names, references in grouped(verdicts, verdict):
            parts.append(f"with {_named(names)}, {words}than with {' and '.join(map(_called, references))}")
            words = ""  # said once
    if parts:
        rest = [text for verdict, (text, _) in NO_SIDE.items() if verdict in kinds]
        return "; ".join([*parts, *([f"otherwise {' or '.join(rest)}"] if rest else [])])
    for verdict, (_, template) in NO_SIDE.items():
        for names, references in grouped(verdicts, verdict):
            who = "" if len(names) > 1 and set(names) == everyone else f"with {_named(names)}, "
            parts.append(who + template.format(" or ".join(map(_called, references))))
    return "; ".join(parts)


def _named(variants: Sequence[str]) -> str:
    return listed([f"<em>{escape(name)}</em>" for name in variants])


def _called(reference: str) -> str:
    return CONTROLS.get(reference, f"<em>{escape(reference)}</em>")


def grouped(verdicts: Mapping[str, Mapping[str, str]], verdict: str) -> list[tuple[list[str], list[str]]]:
    """Who has a verdict, and the references, by their keys in `verdicts`, beside which just these have it."""
    references: dict[tuple[str, ...], list[str]] = {}
    for against, found in verdicts.items():
        names = tuple(name for name, here in found.items() if here == verdict)
        if names:
            references.setdefault(names, []).append(against)
    return [([*names], beside) for names, beside in references.items()]


def spoken(frame: pd.DataFrame, by: Sequence[str], digits: int = 2) -> str:
    """The values of a picture in words, for those who do not see it: ``in range: base 1.65, soft 0.75.``

    Parameters
    ----------
    frame : DataFrame
        Rows of ``variant, value`` and the columns `by`, whose values stand before the variants; nan is left out.
    by : Sequence[str]
        Columns.
    digits : int
        Decimal places.
    """
    here = frame[frame["value"].notna()]
    parts = []
    for key, part in here.groupby(list(by), sort=False) if len(here) else ():
        pairs = zip(part["variant"], part["value"].astype(float), strict=True)
        values = [f"{variant} {round(value, digits) + 0.0:.{digits}f}" for variant, value in pairs]
        parts.append(f"{', '.join(map(str, key))}: {', '.join(values)}.")
    return " ".join(parts)


@dataclass(frozen=True)
class Picture:
    """A figure that says in words what it shows, to those who do not see it.

    The stage that executes the notebook puts the words behind the cell's own (``mystnb.image.alt``).

    Attributes
    ----------
    figure : Figure
        What is shown.
    text : str
        What was found, in plain words.
    """

    figure: Figure
    text: str

    def _repr_png_(self) -> tuple[str, dict[str, Any]]:
        """At twice the screen's resolution, as other figures, with the words beside its size."""
        data, size = retina_figure(self.figure, base64=True)  # type: ignore[no-untyped-call]
        return data, size | {"alt": self.text}


def inline(picture: Picture) -> HTML:
    """A picture as HTML, which can stand in a fold."""
    data, about = picture._repr_png_()
    size = f'width="{about["width"]}" height="{about["height"]}"'
    return _html(f'<img alt="{escape(picture.text)}" {size} src="data:image/png;base64,{data}"/>')


def fold(title: str, *parts: HTML | str) -> HTML:
    """Tables and paragraphs of HTML behind a line that opens them.

    Parameters
    ----------
    title : str
        The line, in plain text: what is inside.
    *parts : HTML or str
        What is inside, one below the other.
    """
    inside = "\n".join(part if isinstance(part, str) else str(part.data) for part in parts)
    return _html(f'<details class="fold"><summary>{escape(title)}</summary>\n{inside}\n</details>')


def together(*parts: HTML) -> HTML:
    """Pieces of HTML below each other, as one output."""
    return _html("\n".join(str(part.data) for part in parts))


def code(text: str) -> str:
    """Plain text with names in backticks as HTML."""
    pieces = escape(text, quote=False).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))


@dataclass(frozen=True)
class Card:
    """One of a few results side by side.

    Attributes
    ----------
    title : str
        Plain text, such as ``What carries over``.
    number : str
        HTML, such as what :func:`number` returns.
    text : str
        HTML: what the number is, in a sentence.
    link : str
        The page that has the whole of it, such as ``mixing.html``.
    """

    title: str
    number: str
    text: str
    link: str


def cards(shown: Sequence[Card]) -> HTML:
    """Cards in a row, below each other on a narrow screen."""
    inside = "\n".join(
        f'<a class="result" href="{escape(card.link)}"><strong>{escape(card.title)}</strong>'
        f'<span class="figure">{card.number}</span><span>{card.text}</span></a>'
        for card in shown
    )
    return _html(f'<div class="results">\n{inside}\n</div>')
