"""Answers as they are written: which are numbers, which of those a law allows, and how else one may be spelt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_INTEGER = 1e-9  # how far from an integer a number may be and still count as one
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def parse_number(text: str) -> float | None:
    r"""The number an answer is, or None.

    The whole answer, white space around it stripped, has to be ``-?\d+(\.\d+)?``. No exponent, no comma, no unit, no
    sentence around it. Only ASCII digits count. The search of `number_search.open_law` takes no white space: a model
    that writes some has more sampled numbers than exact ones.
    """
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def bare_numbers(texts: Sequence[str]) -> float:
    """The share of the answers that are a number and nothing else, as :func:`parse_number` reads it."""
    return sum(parse_number(text) is not None for text in texts) / len(texts)


def spellings(texts: Sequence[str]) -> tuple[str, ...]:
    """All spellings of an answer that may be worded in any of `texts`, without repeats.

    Each wording as it is, in lower case, with a capital first letter and in upper case; a decimal number also without
    its trailing zeros; and each of those with and without a final full stop.
    """
    forms: list[str] = []
    for text in texts:
        forms += [text, text.lower(), text[:1].upper() + text[1:], text.upper()]
        if parse_number(text) is not None and "." in text:
            while text.endswith("0"):
                text = text[:-1]
                forms.append(text.removesuffix("."))
    return tuple(dict.fromkeys(form + stop for form in forms for stop in ("", ".")))


def allowed(values: npt.ArrayLike, support: tuple[float, float], discrete: bool) -> npt.NDArray[np.bool_]:
    """``[n]`` whether each number is inside the closed support and, where discrete, an integer (to 1e-9)."""
    x = np.asarray(values, np.float64)
    inside: npt.NDArray[np.bool_] = (x >= support[0]) & (x <= support[1])
    if discrete:
        finite = np.isfinite(x)
        whole = np.where(finite, x, 0.0)
        inside &= finite & (np.abs(whole - np.rint(whole)) <= _INTEGER)
    return inside


class Validity(NamedTuple):
    """Counts over answers.

    ``total = numbers + answers that are no number``, ``numbers = valid + violations``.
    """

    total: int
    numbers: int
    valid: int
    support_violations: int


def validity(texts: Sequence[str], support: tuple[float, float], discrete: bool) -> Validity:
    """Count the answers that are a number, and those that are an allowed one."""
    values = [v for v in map(parse_number, texts) if v is not None]
    valid = int(allowed(values, support, discrete).sum())
    return Validity(len(texts), len(values), valid, len(values) - valid)
