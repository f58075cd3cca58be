"""What is asked: one of two words with a stated probability, for pairs of words, wordings, orders and probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import yaml

from calibnb.laws.specs import evenly

Order = Literal["as listed", "swapped"]


@dataclass(frozen=True)
class Pair:
    """Two words; the probability asked for is that of the first.

    Attributes
    ----------
    seen : bool
        Whether ordinary examples of training may use it.
    """

    words: tuple[str, str]
    seen: bool

    @property
    def name(self) -> str:
        return "/".join(self.words)


@dataclass(frozen=True)
class Wording:
    """A template, and whether ordinary examples of training may use it."""

    name: str
    template: str
    seen: bool


@dataclass(frozen=True)
class Item:
    """One prompt.

    Attributes
    ----------
    order : {"as listed", "swapped"}
        Whether the prompt names the pair's words in their order, or the other way round.
    asked : float
        The probability that it asks for, of the pair's first word.
    """

    pair: Pair
    wording: Wording
    order: Order
    asked: float

    @property
    def named(self) -> tuple[str, str]:
        """The two words in the order in which the prompt names them."""
        first, second = self.pair.words
        return (first, second) if self.order == "as listed" else (second, first)

    @property
    def held_out(self) -> bool:
        """Whether no training may use its pair, or none its wording."""
        return not (self.pair.seen and self.wording.seen)

    @property
    def prompt(self) -> str:
        p = Decimal(str(self.asked))  # the decimal that was written, not the binary number next to it
        shares = (p, 1 - p) if self.order == "as listed" else (1 - p, p)
        return self.wording.template.format_map(dict(_written(self.named, shares)))


def _plain(number: Decimal) -> str:
    """Without exponent or trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _written(words: tuple[str, str], shares: tuple[Decimal, Decimal]) -> Iterator[tuple[str, str]]:
    """What templates may name, and the text that stands for it."""
    total = 100
    while any(share * total % 1 for share in shares):
        total *= 10
    yield "total", str(total)
    for place, word, share in zip(("first", "second"), words, shares, strict=True):
        part, whole = share.as_integer_ratio()
        yield place, word
        yield f"{place}_percent", _plain(100 * share)
        yield f"{place}_decimal", _plain(share)
        yield f"{place}_fraction", f"{part}/{whole}"
        yield f"{place}_odds", str(part)  # the two add up to 1, so in lowest terms they have one denominator
        yield f"{place}_cases", _plain(share * total)


@cache
def table() -> tuple[tuple[Pair, ...], tuple[Wording, ...]]:
    """All pairs and all wordings, in the order of ``items.yaml``."""
    raw = yaml.safe_load((files("calibnb.benchmarks.mixing") / "items.yaml").read_text(encoding="utf-8"))
    pairs = [Pair((entry["words"][0], entry["words"][1]), entry["seen"]) for entry in raw["pairs"]]
    wordings = [Wording(name, entry["prompt"], entry["seen"]) for name, entry in raw["wordings"].items()]
    return tuple(pairs), tuple(wordings)


def items(probabilities: Sequence[float], pairs: int | Literal["all"], wordings: int | Literal["all"]) -> list[Item]:
    """Every pair in every wording and both orders, asked for every probability.

    Neighbours begin alike: those that differ in the probability alone stand beside each other.

    Parameters
    ----------
    probabilities : Sequence[float]
        Of the pair's first word; in (0, 1).
    pairs, wordings : int or "all"
        How many of those of the table, evenly spaced.
    """
    of_pairs, of_wordings = table()
    return [
        Item(pair, wording, order, asked)
        for wording in (of_wordings if wordings == "all" else evenly(of_wordings, wordings))
        for pair in (of_pairs if pairs == "all" else evenly(of_pairs, pairs))
        for order in get_args(Order)
        for asked in probabilities
    ]
