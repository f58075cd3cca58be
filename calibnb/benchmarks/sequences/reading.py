r"""Reading many draws off one answer.

An answer is read as it stands, however long: commas, semicolons, blanks, line breaks, brackets, quotation marks,
bullets and code fences separate draws. Two things need care, since both would add numbers that nobody drew:

- *Numbering.* ``1. 5.3\n2. 4.1`` is two draws. Numbers that count 0, 1, 2, ... or 1, 2, 3, ... before a full stop,
  bracket, colon, dash or bar are numbering where something is drawn between each and the next, and where each begins a
  line or has one draw behind it. An answer that was cut off may end with numbering.
- *Prose and code.* A word, a colon or an equals sign ends a run of draws, and the longest run is the answer. Beside
  other words, a run of one or two is what a sentence says ("a mean of 5"), and is no answer; neither are the arguments
  of a call, ``normal(5, 2)``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from calibnb.laws import parsing

AMONG_WORDS = 3  # draws in a run, at least, where the answer has words that are no draws
NO_OUTCOMES: Mapping[str, float] = {}

_NUMBER = r"(?<![\w./])[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?(?![\w%/]|\.\d)"
_SEPARATOR = r"[\s,;|\[\](){}\"'“”‘’]+|\.{2,}|…|\.(?=[\s,;|\])}\"'”’]|$)"
_WORD = r"[^\W\d]+(?:['’][^\W\d]+)*"
_TOKEN = re.compile(rf"(?P<number>{_NUMBER})|(?P<word>{_WORD})|(?P<separator>{_SEPARATOR})|.", re.DOTALL)
_FENCE = re.compile(r"```[ \t]*\w*")
_BULLET = re.compile(r"^[ \t]*[-+•–—][ \t]+", re.MULTILINE)
_CALL = re.compile(r"[^\W\d][\w.]*\([^()\[\]]*\)")

# The number of an entry, "3." "3)" "3:" "(3)" "#3 -" "| 3 |" '"3":', with one word before it at most ("Roll 3:").
_ENTRY = re.compile(
    r"(?:(?:^|(?<=[,;\n]))[ \t]*[^\W\d_]+[ \t]+|(?<![^\s|(\[{,;\"']))"
    r"[#(\"']*(\d{1,4})[\"']?(?:[ \t]*[):=|]|\.(?=\s|$)|[ \t]+[-–—](?=\s))"
)


class Draw(NamedTuple):
    """A draw, and how many decimals it was written with."""

    value: float
    decimals: int


def _draws_of(match: re.Match[str], outcomes: Mapping[str, float]) -> list[Draw]:
    """The draws that a number or word is; none where it is no draw."""
    text = match.group()
    if text in outcomes:
        return [Draw(outcomes[text], 0)]
    if len(text) > 1 and all(sign in outcomes for sign in text):  # HTTH, 0110
        return [Draw(outcomes[sign], 0) for sign in text]
    in_words = bool(outcomes) and not any(parsing.parse_number(form) is not None for form in outcomes)
    if match["number"] is None or in_words:
        return []
    return [Draw(float(text), max(0, -int(Decimal(text).as_tuple().exponent)))]


def _runs(text: str, outcomes: Mapping[str, float]) -> tuple[list[list[Draw]], bool]:
    """The runs of draws in a text without numbering, and whether it has words that are no draws."""
    runs: list[list[Draw]] = [[]]
    worded = False
    for match in _TOKEN.finditer(text):
        found = _draws_of(match, outcomes) if match.lastgroup in ("number", "word") else []
        if found:
            runs[-1] += found
        elif match.lastgroup == "separator" or (match.group() == "and" and len(runs[-1]) > 1):
            continue  # "between 20 and 50" is no run of two
        else:
            worded |= match.lastgroup == "word"
            runs.append([])
    return [run for run in runs if run], worded


def _starts_line(text: str, match: re.Match[str]) -> bool:
    before = text[: match.start()]
    return not before[before.rfind("\n") + 1 :].strip(" \t|[({")


def _numbered(text: str, outcomes: Mapping[str, float]) -> list[list[list[Draw]]] | None:
    """The runs behind each number of a numbered answer; None for an answer that is not numbered."""
    candidates = list(_ENTRY.finditer(text))
    entries: list[re.Match[str]] = []
    for match in candidates:
        number = int(match[1])
        if not entries:
            if number in (0, 1):
                entries.append(match)
        elif number == int(entries[-1][1]) + 1 and _runs(text[entries[-1].end() : match.start()], outcomes)[0]:
            entries.append(match)
    if not entries:
        return None
    ends = [*(match.start() for match in entries[1:]), len(text)]
    behind = [_runs(text[match.end() : end], outcomes)[0] for match, end in zip(entries, ends, strict=True)]
    if len(entries) == 1:  # one number that anything could begin with
        alone = len(candidates) == 1 and _starts_line(text, entries[0]) and not entries[0].group().endswith(("|", "="))
        return behind if alone and behind[0] else None
    lines = [match for match in candidates if entries[0].start() <= match.start() <= entries[-1].start()]
    if all(_starts_line(text, match) for match in entries):
        # Draws may lie on lines of their own, with full stops behind: then some of these lines do not count on.
        return behind if all(match in entries for match in lines if _starts_line(text, match)) else None
    first = entries[0].start()
    drawn_before = _runs(text[text.rfind("\n", 0, first) + 1 : first], outcomes)[0]
    single = all(sum(map(len, runs)) == 1 for runs in behind[:-1]) and sum(map(len, behind[-1][:1])) <= 1
    return behind if single and not drawn_before else None


def read(text: str, outcomes: Mapping[str, float] = NO_OUTCOMES) -> tuple[Draw, ...]:
    """The draws that an answer gives, in order.

    Parameters
    ----------
    text : str
        The answer.
    outcomes : Mapping[str, float]
        Spellings in lower case of what may be drawn, and their numbers; where none of them is a number, a number is no
        draw. Those of one letter or digit may be written without anything between them ("HTTH"). Without any, every
        number is a draw, whether or not the law allows it.
    """
    plain = _FENCE.sub("\n", text.casefold().replace("−", "-"))
    plain = _CALL.sub("call", re.sub(r"[*_`]", " ", plain))
    plain = _BULLET.sub("", plain)
    numbered = _numbered(plain, outcomes)
    if numbered is not None:
        return tuple(draw for runs in numbered for draw in next(iter(runs), []))
    runs, worded = _runs(plain, outcomes)
    longest = max(reversed(runs), key=len, default=[])
    return tuple(longest) if len(longest) >= (AMONG_WORDS if worded else 1) else ()


def read_order(text: str, entries: Sequence[str]) -> tuple[int, ...] | None:
    """The places of a list's entries in the order of an answer; None where it is no permutation of them.

    Parameters
    ----------
    text : str
        The answer.
    entries : Sequence[str]
        Words, or whole numbers, without repeats.
    """
    numbers = [parsing.parse_number(entry) for entry in entries]
    if None in numbers:
        found = [draw.value for draw in read(text, {entry.casefold(): i for i, entry in enumerate(entries)})]
    else:
        place = dict(zip(numbers, range(len(entries)), strict=True))
        found = [place.get(draw.value, -1) for draw in read(text)]
    return tuple(map(int, found)) if sorted(found) == list(range(len(entries))) else None
