"""Reading several random choices off one answer: draws and shuffles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibnb.benchmarks.language.suites import Draws, Shuffle
from calibnb.laws import parsing

OUTSIDE = -1  # place of a draw that is not admissible
_NUMBER = r"(?P<number>(?:(?<![\w.])-)?[0-9]+(?:\.[0-9]+)?(?!\w))"
_OTHER = r"(?P<word>\w+(?:['’]\w+)*)|(?P<stop>[:=])"
_FIELD = re.compile(r"[,;|\n]")
_MARKS = re.compile(r"[*_`]")
_JOINING = ("and", "then")

# The number of an entry in a list, "3." "3)" "3:" "(3)" "#3 -", with a word before it at most ("Roll 3:") where it
# follows a line break or comma.
_NUMBERING = re.compile(
    r"(?:(?:^|(?<=[,;\n]))[ \t]*[^\W\d_]+[ \t]+|(?<!\S))[#(]?([0-9]{1,3})(?:[ \t]*[):=]|\.(?=\s)|[ \t][-–—](?=\s))"
)
Value = tuple[int, str]  # the place of a draw among the admissible ones, or OUTSIDE, and what was written


@dataclass(frozen=True)
class Reading:
    """What was read from an answer.

    Attributes
    ----------
    values : tuple[int, ...]
        The draws in order, as places among the admissible ones; `OUTSIDE` where one is not.
    reason : str
        Why the answer does not count; empty where it does.
    """

    values: tuple[int, ...]
    reason: str


def value_runs(text: str, forms: Mapping[str, int]) -> list[list[Value]]:
    """The runs of draws in a text: draws with nothing but separators, "and" or "then" between them.

    A colon, an equals sign or any other word ends a run, except what must be meant as a draw and is none: another
    number where draws are numbers, or a word that stands alone between commas or line breaks inside a run. It is in
    the run, as `OUTSIDE`. Draws that are letters may be written without anything between them ("HTTH").

    Parameters
    ----------
    text : str
        The answer.
    forms : Mapping[str, int]
        Case-folded spellings and the place of the admissible value they stand for.
    """
    numeric = all(parsing.parse_number(form) is not None for form in forms)
    by_value = {float(form): place for form, place in forms.items()} if numeric else {}
    letters = {form for form in forms if len(form) == 1 and form.isalpha()}
    longest_first = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    own = _NUMBER if numeric else rf"(?P<phrase>(?<!\w)(?:{longest_first})(?!\w))"
    pattern = re.compile(f"{own}|{_OTHER}")
    runs: list[list[Value]] = [[]]
    for field in _FIELD.split(text.casefold()):
        found = list(pattern.finditer(field))
        for match in found:
            token, kind = match.group(), match.lastgroup
            if kind == "number":
                runs[-1].append((by_value.get(float(token), OUTSIDE), token))
            elif kind == "phrase":
                runs[-1].append((forms[token], token))
            elif kind == "word" and set(token) <= letters:
                runs[-1] += [(forms[letter], letter) for letter in token]
            elif kind == "word" and token in _JOINING:
                continue
            elif kind == "word" and len(found) == 1:  # `_trimmed` drops those at the ends
                runs[-1].append((OUTSIDE, token))
            else:
                runs.append([])
    return [run for run in map(_trimmed, runs) if run]


def _trimmed(run: list[Value]) -> list[Value]:
    """A run without unknown words at its ends, which are what stands around the list."""
    known = [i for i, (place, token) in enumerate(run) if place != OUTSIDE or parsing.parse_number(token) is not None]
    return run[known[0] : known[-1] + 1] if known else []


def read_values(text: str, forms: Mapping[str, int], asked: int) -> list[Value]:
    """The draws that an answer gives: its last run of `asked` draws, or its longest run where there is none.

    Numbering is taken away where it counts 1, 2, 3, ... and something stands behind each number.
    """
    text = _MARKS.sub(" ", text).replace("−", "-")
    entries = [int(number) for number in _NUMBERING.findall(text)]
    runs = value_runs(text, forms)
    if len(entries) > 1 and entries == list(range(1, len(entries) + 1)):
        without = value_runs(_NUMBERING.sub("\n", text), forms)
        if sum(map(len, without)) >= len(entries):
            runs = without
    fitting = [run for run in runs if len(run) == asked]
    return fitting[-1] if fitting else max(runs, key=len, default=[])


def _reason(text: str, values: Sequence[Value], asked: int) -> str:
    """Why a list of draws does not count, or nothing."""
    if not text.strip():
        return "empty"
    if not values:
        return "nothing admissible"
    outside = [token for place, token in values if place == OUTSIDE]
    if outside:
        return f"{outside[0][:20]!r} is not admissible"
    return "" if len(values) == asked else f"{len(values)} values instead of {asked}"


def read_draws(text: str, item: Draws) -> Reading:
    """Read the answer to an item of `draws`."""
    forms = {
        form.casefold().removesuffix("."): place
        for place, answer in enumerate(item.answers)
        for form in answer.spellings
    }
    values = read_values(text, forms, item.draws)
    return Reading(tuple(place for place, _ in values), _reason(text, values, item.draws))


def read_shuffle(text: str, item: Shuffle) -> Reading:
    """Read the answer to an item of `shuffles`; it counts if it is a permutation of the entries."""
    forms = {entry.casefold(): place for place, entry in enumerate(item.entries)}
    values = read_values(text, forms, len(item.entries))
    places = tuple(place for place, _ in values)
    reason = _reason(text, values, len(item.entries))
    twice = [token for i, (place, token) in enumerate(values) if place in places[:i]]
    return Reading(places, f"{twice[0]!r} occurs twice" if not reason and twice else reason)
