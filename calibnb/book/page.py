"""Pieces of a page that are neither figure nor table: the answer in a line, numbers, cards, and what is folded away.

A page says things in words and shows the numbers behind them on demand: the interval of a number when it is pointed at,
tables in a fold that opens on a click. How they look is in book/_static/calibnb.css.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from IPython.display import HTML

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


def answer(sentence: str) -> HTML:
    """What a page found, in one sentence of HTML below its question."""
    return _html(f'<p class="answer">{sentence}</p>')


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
