"""Randomness asked for in ordinary language: stories, shares, conditions, ranges, lists of draws, shuffles.

Nothing in these prompts names a law by its symbol, but each fixes one. What a model does with it is measured as
exactly as the form of the answer allows:

- *One answer from a closed set* (`implicit`, `shares`, `conditionals`, `ranges`): the probability of every accepted
  spelling of every answer, summed. No sampling noise, hence no comparison with a perfect sampler.
- *Another wording of the study's prompt* (`paraphrases`): the open law of `calibnb.answers`, as in the structured
  benchmark, so that nW1 and valid mass can be compared with those of the study's own wording.
- *Many draws in one answer* (`draws`, `shuffles`): sampled and parsed. Beside every distance stands what a perfect
  sampler is expected to get from as many draws, since even that is not zero.

The parser of the sampled suites is lenient about form (numbering, brackets, a sentence before the list) and strict
about content: an answer counts only with the number of draws asked for, all of them admissible. Where no answer
counts, measures are nan.
"""

from __future__ import annotations

import functools
import itertools
import operator
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from calibnb import metrics, params, specs
from calibnb.answers import number_tokens, open_law
from calibnb.benchmarks.structured import Target, measures_of_open_law
from calibnb.errors import UserError
from calibnb.families import FAMILIES, ParameterError
from calibnb.models import ChatFormat
from calibnb.params import OpenParams
from calibnb.sample import Ask
from calibnb.specs import Spec, evenly
from calibnb.tree import Body, answer_log_probabilities
from calibnb.trie import Floats, Ints, build

BUNDLED = "bundled"  # the source that stands for the items of the library
EXACT = ("implicit", "shares", "conditionals", "ranges")
SUITES = (*EXACT, "draws", "shuffles", "paraphrases")

TOLERANCE = Fraction(1, 10**6)  # how far from 1 the probabilities of an item may sum
MAX_ANSWERS = 200  # of a closed set: a slip in a range should be an error, not a hang
SHUFFLED = (3, 6)  # entries of a list to shuffle, at least and at most
DIGITS = 4  # significant digits of printed parameters, as many as `specs.number` prints
REPEATS = 1000  # simulated perfect samplers behind an expectation that has no closed form

# What the chapters select from the tables: a file of items may hold no suite of a kind, whose table is then empty.
EXACT_COLUMNS = (
    "suite", "id", "prompt", "valid_mass", "normalised_tv", "total_variation_all", "top", "top_probability",
)  # fmt: skip
PARAPHRASE_COLUMNS = ("suite", "id", "prompt", "wording", "label", "valid_mass", "certificate", "nw1")
SAMPLED_COLUMNS = (
    "suite", "id", "prompt", "valid", "pooled_tv", "pooled_tv_perfect", "pooled_tv_ratio", "within_tv",
    "within_tv_perfect", "first_tv", "first_tv_perfect", "first_tv_ratio", "unchanged", "unchanged_perfect",
)  # fmt: skip
TEXT_COLUMNS = ("suite", "id", "answer", "text", "valid", "reason")


# ------------------------------------------------------------------------------------------------------------
# Items


@dataclass(frozen=True)
class Answer:
    """An admissible answer, its probability under the item's law, and all strings that count as it."""

    text: str
    probability: Fraction
    spellings: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A question with one answer from a closed set; the probabilities of the answers sum to 1 exactly."""

    suite: str
    id: str
    prompt: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Draws:
    """A question for `draws` independent draws from the law of a closed set, in one answer."""

    suite: str
    id: str
    prompt: str
    answers: tuple[Answer, ...]
    draws: int


@dataclass(frozen=True)
class Shuffle:
    """A list to be put in random order; `entries` as the prompt gives them."""

    suite: str
    id: str
    prompt: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Paraphrase:
    """A named law asked for in another wording than the study's."""

    suite: str
    id: str
    prompt: str
    wording: str
    spec: Spec


Item = Choice | Draws | Shuffle | Paraphrase


def target(answers: Sequence[Answer]) -> Floats:
    """``[k]`` probabilities of the answers."""
    return np.array([float(answer.probability) for answer in answers])


def numbers_of(answers: Sequence[Answer]) -> Floats | None:
    """``[k]`` the answers as numbers; None unless all of them are numbers."""
    values = [metrics.parse_number(answer.text) for answer in answers]
    return None if None in values else np.array(values, np.float64)


# ------------------------------------------------------------------------------------------------------------
# Reading items


def load_items(source: str | Path) -> list[Item]:
    """The items of a YAML file; its layout is described at the head of the bundled one.

    Args:
        source: "bundled", or the path of a file with any of the suites.

    Raises:
        UserError: one line that names the file, suite and item, and what is wrong there.
    """
    if source == BUNDLED:
        with resources.as_file(resources.files("calibnb") / "prompts" / "language.yaml") as path:
            return _suites(str(path), params.read(path))
    return _suites(str(source), params.read(source))


def probability(raw: object) -> Fraction:
    """A decimal (0.6), a fraction ("1/6") or a sum of products of them ("1/2 * 2/3 + 1/2 * 1/5"), exactly.

    Raises ValueError for anything else.
    """
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError(f"not a probability: {raw!r}")
    total = Fraction(0)
    for term in str(raw).replace(" ", "").split("+"):
        try:
            total += functools.reduce(operator.mul, map(Fraction, term.split("*")))
        except ZeroDivisionError:
            raise ValueError(f"not a probability: {raw!r}") from None
    return total


def _fail(where: str, problem: str) -> NoReturn:
    raise UserError(f"{where}: {problem}")


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _block(where: str, raw: Any, needed: Sequence[str], possible: Sequence[str] = ()) -> dict[str, Any]:
    """`raw` if it is a mapping with all `needed` keys and no others than those and the `possible` ones."""
    if not isinstance(raw, dict):
        _fail(where, f"must be a block of keys, got {_shown(raw)}")
    for key in raw:
        if key not in (*needed, *possible):
            _fail(where, f"unknown key {key}; allowed: {', '.join([*needed, *possible])}")
    for key in needed:
        if key not in raw:
            _fail(where, f"{key} must be given, got nothing")
    return raw


def _named(where: str, raw: Any) -> dict[str, Any]:
    """`raw` if it is a mapping with at least one entry."""
    if not isinstance(raw, dict) or not raw:
        _fail(where, f"must map at least one name to what it stands for, got {_shown(raw)}")
    return raw


def _text(where: str, key: str, raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        _fail(where, f"{key} must be text, got {_shown(raw)}")
    return raw


def _suites(file: str, raw: Mapping[str, Any]) -> list[Item]:
    items: list[Item] = []
    for suite, block in raw.items():
        if suite not in SUITES:
            _fail(file, f"unknown suite {suite}; allowed: {', '.join(SUITES)}")
        where = f"{file}: {suite}"
        if suite == "paraphrases":
            items += _paraphrases(where, block)
            continue
        for name, entry in _named(where, block).items():
            at = f"{where}.{name}"
            if suite == "draws":
                items.append(_draws(at, name, entry))
            elif suite == "shuffles":
                items.append(_shuffle(at, name, entry))
            else:
                held = _block(at, entry, ["prompt"], ["answers", "uniform", "also"])
                items.append(Choice(suite, name, _text(at, "prompt", held["prompt"]), _answers(at, held)))
    if not items:
        _fail(file, "must hold at least one suite, got none")
    return items


def _answers(where: str, raw: Mapping[str, Any]) -> tuple[Answer, ...]:
    """The closed set of an item: from `answers` or `uniform`, with the wordings of `also`."""
    if ("answers" in raw) == ("uniform" in raw):
        _fail(where, "must have answers or uniform, " + ("got both" if "answers" in raw else "got neither"))
    law = _explicit(where, raw["answers"]) if "answers" in raw else _uniform(where, raw["uniform"])
    if not 2 <= len(law) <= MAX_ANSWERS:
        _fail(where, f"must have 2 to {MAX_ANSWERS} answers, got {len(law)}")
    total = sum(law.values(), Fraction(0))
    if abs(total - 1) > TOLERANCE:
        _fail(where, f"probabilities must sum to 1, got {float(total):g}")
    also = raw.get("also", {})
    if not isinstance(also, dict) or not all(isinstance(v, list) for v in also.values()):
        _fail(where, f"also must map answers to lists of wordings, got {_shown(also)}")
    for name in also:
        if name not in law:
            _fail(where, f"also names {name}, which is no answer; answers: {', '.join(law)}")
    owner: dict[str, str] = {}
    answers = []
    for text, p in law.items():
        more = [_text(where, f"also.{text}", wording) for wording in also[text]] if text in also else []
        forms = metrics.spellings([text, *more])
        for form in forms:
            if owner.setdefault(form, text) != text:
                _fail(where, f"answers {owner[form]} and {text} share the spelling {form!r}")
        answers.append(Answer(text, p / total, forms))
    return tuple(answers)


def _explicit(where: str, raw: Any) -> dict[str, Fraction]:
    law: dict[str, Fraction] = {}
    for name, given in _named(f"{where}.answers", raw).items():
        try:
            p = probability(given)
        except ValueError:
            p = Fraction(-1)
        if not 0 < p < 1:
            _fail(where, f"the probability of {name} must be a decimal or fraction in (0, 1), got {_shown(given)}")
        law[_text(where, "an answer", name)] = p
    return law


def _uniform(where: str, raw: Any) -> dict[str, Fraction]:
    """A uniform law on a list of texts, or on the numbers of a range with all ends' decimals."""
    if isinstance(raw, list):
        names = [_text(where, "an answer of uniform", name) for name in raw]
        if len(set(names)) < len(names):
            _fail(where, f"uniform must be without repeats, got {_shown(raw)}")
    else:
        ends = _block(f"{where}.uniform", raw, ["from", "to", "step"])
        for key, value in ends.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                _fail(where, f"uniform.{key} must be a number, got {_shown(value)}")
        low, high, step = (Fraction(str(ends[key])) for key in ("from", "to", "step"))
        if step <= 0 or high <= low or (high - low) % step != 0 or (high - low) / step >= MAX_ANSWERS:
            allowed = f"a whole number of steps between from < to, at most {MAX_ANSWERS - 1}"
            _fail(where, f"uniform must have {allowed}, got {_shown(raw)}")
        # As many decimals as the file writes, so that 0.0 to 1.0 in steps of 0.1 is 0.0, 0.1, ..., 1.0.
        places = max(len(str(value).partition(".")[2]) for value in ends.values())
        count = int((high - low) / step) + 1
        names = [f"{float(low + i * step):.{places}f}" for i in range(count)]
    return {name: Fraction(1, len(names)) for name in names}


def _draws(where: str, name: str, raw: Any) -> Draws:
    held = _block(where, raw, ["prompt", "draws"], ["answers", "uniform", "also"])
    prompt, count = _text(where, "prompt", held["prompt"]), held["draws"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        _fail(where, f"draws must be an integer >= 2, got {_shown(count)}")
    answers = _answers(where, held)
    _readable(where, [form for answer in answers for form in answer.spellings])
    return Draws("draws", name, prompt, answers, count)


def _shuffle(where: str, name: str, raw: Any) -> Shuffle:
    held = _block(where, raw, ["prompt", "items"])
    prompt, entries = _text(where, "prompt", held["prompt"]), held["items"]
    low, high = SHUFFLED
    if not isinstance(entries, list) or not low <= len(entries) <= high:
        _fail(where, f"items must be a list of {low} to {high} entries, got {_shown(entries)}")
    texts = [_text(where, "an entry of items", entry) for entry in entries]
    if len({text.casefold() for text in texts}) < len(texts):
        _fail(where, f"items must be without repeats, got {_shown(entries)}")
    _readable(where, texts)
    return Shuffle("shuffles", name, prompt, tuple(texts))


def _readable(where: str, texts: Sequence[str]) -> None:
    """What separates draws cannot be part of one."""
    for text in texts:
        found = re.search(r"[,;:|=*_`\n]", text)
        if found:
            _fail(where, f"{text!r} holds {found[0]!r}, which separates draws from one another")


def _fields(where: str, template: str) -> set[str]:
    """The placeholders of a template; only plain ones are allowed."""
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        _fail(where, f"must be text with placeholders in braces, got {_shown(template)} ({error})")
    for _, field, style, conversion in parts:
        if not field or style or conversion:
            _fail(where, f"placeholders must be names in braces, got {_shown(template)}")
    return {str(field) for _, field, _, _ in parts}


def _paraphrases(where: str, raw: Any) -> list[Item]:
    """Every wording crossed with every law."""
    held = _block(where, raw, ["wordings", "laws"])
    wordings = {
        name: _text(f"{where}.wordings", name, template)
        for name, template in _named(f"{where}.wordings", held["wordings"]).items()
    }
    used = {name: _fields(f"{where}.wordings.{name}", template) for name, template in wordings.items()}
    texts_used = sorted(set().union(*used.values()) - {"distribution", "parameters"})
    laws: dict[str, tuple[Spec, dict[str, str]]] = {}
    for name, entry in _named(f"{where}.laws", held["laws"]).items():
        laws[name] = _law(f"{where}.laws.{name}", entry, texts_used)
    items: list[Item] = []
    for wording, template in wordings.items():
        if not used[wording]:
            _fail(f"{where}.wordings.{wording}", "must have a placeholder for the law, got none")
        for name, (spec, texts) in laws.items():
            items.append(Paraphrase("paraphrases", f"{wording}/{name}", template.format(**texts), wording, spec))
    return items


def _law(where: str, raw: Any, texts_used: Sequence[str]) -> tuple[Spec, dict[str, str]]:
    """A law and the texts that stand for it in the wordings, its printed parameters filled in."""
    held = _block(where, raw, ["family", "split", "parameters", *texts_used])
    family, split, point = _text(where, "family", held["family"]), held["split"], held["parameters"]
    if family not in FAMILIES:
        _fail(where, f"family must be one of {', '.join(FAMILIES)}, got {_shown(family)}")
    if split not in get_args(specs.Split):
        _fail(where, f"split must be one of {', '.join(get_args(specs.Split))}, got {_shown(split)}")
    point = _block(f"{where}.parameters", point, [p.name for p in FAMILIES[family].grid_parameters])
    for name, value in point.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            _fail(where, f"parameters.{name} must be a number, got {_shown(value)}")
    try:
        spec = specs.of_point(family, point, split, DIGITS)
    except ParameterError as error:
        _fail(f"{where}.parameters", str(error))
    printed = {name: specs.number(value) for name, value in spec.parameters}
    texts = {
        "distribution": FAMILIES[family].title,
        "parameters": specs.prompt(spec, "{parameters}", "words"),
    }
    for name in texts_used:
        template = _text(where, name, held[name])
        if _fields(f"{where}.{name}", template) != set(printed):
            wanted = ", ".join(f"{{{parameter}}}" for parameter in printed)
            _fail(f"{where}.{name}", f"must use each of {wanted} and no other placeholder, got {_shown(template)}")
        texts[name] = template.format(**printed)
    return spec, texts


# ------------------------------------------------------------------------------------------------------------
# Exact: one answer from a closed set


def w1_of_numbers(values: Floats, p: Floats, q: Floats) -> tuple[float, float]:
    """W1 between two laws on the same finite set of numbers, and nW1.

    Args:
        values: ``[k]`` the numbers, in any order.
        p: ``[k]`` target probabilities. q: ``[k]`` the others.

    Returns:
        W1 in the unit of the values, and W1 divided by E|X - median| of the target, as in `calibnb.metrics`: 1 is
        what always answering the median gets.
    """
    order = np.argsort(values)
    gaps = np.diff(values[order])
    cdf, other = np.cumsum(p[order])[:-1], np.cumsum(q[order])[:-1]
    distance = float(np.abs(cdf - other) @ gaps)
    return distance, distance / float(np.minimum(cdf, 1 - cdf) @ gaps)


def choice_measures(log_masses: Floats, p: Floats, values: Floats | None) -> dict[str, float]:
    """Measures of the probabilities that a model gives to a closed set of answers.

    Args:
        log_masses: ``[k]`` log-probability of each answer, all its spellings together.
        p: ``[k]`` target.
        values: ``[k]`` the answers as numbers, where they are.

    Returns:
        ``valid_mass`` (probability of any accepted spelling); ``total_variation`` to the target given a valid answer,
        in [0, 1]; ``chance_tv``, what always giving the likeliest answer gets, 1 - max p; ``normalised_tv``, their
        ratio; ``total_variation_all``, with all other answers as one more outcome of target probability 0; ``w1`` and
        ``nw1`` given a valid answer (nan where answers are no numbers).
    """
    logz = float(np.logaddexp.reduce(log_masses))
    q = np.exp(log_masses - logz) if np.isfinite(logz) else np.full(len(p), np.nan)
    distance, chance = metrics.total_variation(p, q), 1 - float(p.max())
    w1, nw1 = (float("nan"), float("nan")) if values is None else w1_of_numbers(values, p, q)
    return {
        "valid_mass": float(np.exp(logz)),
        "total_variation": distance,
        "chance_tv": chance,
        "normalised_tv": distance / chance,
        "total_variation_all": metrics.total_variation(p, np.exp(log_masses)) + (1 - float(np.exp(logz))) / 2,
        "w1": w1,
        "nw1": nw1,
    }


def log_masses_of(body: Body, chat: ChatFormat, item: Choice) -> Floats:
    """``[k]`` log-probability of each answer of an item: its spellings, each complete with the end token.

    A spelling is counted in the tokens that the tokenizer gives it; other token sequences of the same text are not,
    so masses are lower bounds, in practice close ones. Raises UserError where two answers have the same tokens.
    """
    pairs = [(form, place) for place, answer in enumerate(item.answers) for form in answer.spellings]
    owner: dict[tuple[int, ...], int] = {}
    for ids, (form, place) in zip(chat.answer_ids([form for form, _ in pairs]), pairs, strict=True):
        if owner.setdefault(tuple(ids), place) != place:
            _fail(f"{item.suite}.{item.id}", f"the tokenizer writes {form!r} like another answer")
    trie = build(list(owner), np.full(len(owner), 1 / len(owner)), chat.end_id)
    logp = answer_log_probabilities(body, chat.prompt_ids(item.prompt), trie)
    places = np.array(list(owner.values()))
    return np.array([np.logaddexp.reduce(logp[places == k]) for k in range(len(item.answers))])


def of_each_suite(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items of every suite, evenly spaced, in their order."""
    chosen: list[Item] = []
    for suite in SUITES:
        chosen += evenly([item for item in items if item.suite == suite], count)
    return chosen


def run_exact(body: Body, chat: ChatFormat, items: Sequence[Item]) -> pd.DataFrame:
    """Measure the items of the closed suites exactly; items of other suites are left out.

    Returns:
        A row an item: ``suite, id, prompt``; ``answers`` (list of texts), ``target`` and ``model`` (their
        probabilities, the model's with all other answers counted in: ``explode`` the three for a long table); the
        measures of `choice_measures`; ``top``, the model's likeliest answer, and ``top_probability``, given a valid
        answer.
    """
    rows = []
    chosen = [item for item in items if isinstance(item, Choice)]
    for item in tqdm(chosen, desc="ordinary language, exact", unit="item"):
        p, log_masses = target(item.answers), log_masses_of(body, chat, item)
        top = int(np.argmax(log_masses))
        about = {
            "suite": item.suite,
            "id": item.id,
            "prompt": item.prompt,
            "answers": [answer.text for answer in item.answers],
            "target": p.tolist(),
            "model": np.exp(log_masses).tolist(),
        }
        measures = choice_measures(log_masses, p, numbers_of(item.answers))
        share = float(np.exp(log_masses[top] - np.logaddexp.reduce(log_masses)))
        rows.append(about | measures | {"top": item.answers[top].text, "top_probability": share})
    return _table(rows, EXACT_COLUMNS)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as they are, with the `columns` that none of them has."""
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*frame.columns, *(name for name in columns if name not in frame)])


# ------------------------------------------------------------------------------------------------------------
# Exact: other wordings of the study's prompt


def run_paraphrases(
    body: Body, chat: ChatFormat, vocabulary: dict[str, int], items: Sequence[Item], search: OpenParams
) -> pd.DataFrame:
    """Measure the items of `paraphrases` by the open law of their answers; others are left out.

    Args:
        vocabulary: ``tokenizer.get_vocab()``.
        search: as for the structured benchmark.

    Returns:
        A row an item: ``suite, id, prompt, wording``; ``family, label, split``, which name the setting in the
        structured benchmark's results; and the measures of `structured.measures_of_open_law`, ``nw1`` and
        ``valid_mass`` among them.
    """
    numbers = number_tokens(vocabulary)
    rows = []
    chosen = [item for item in items if isinstance(item, Paraphrase)]
    targets = {spec: Target.of(spec) for spec in dict.fromkeys(item.spec for item in chosen)}
    for item in tqdm(chosen, desc="ordinary language, other wordings", unit="item"):
        found = open_law(
            body, chat.prompt_ids(item.prompt), numbers, chat.end_id,
            tolerance=search.tolerance, max_nodes=search.max_nodes, nodes_per_pass=search.nodes_per_pass,
        )  # fmt: skip
        about = {"suite": item.suite, "id": item.id, "prompt": item.prompt, "wording": item.wording}
        setting = {"family": item.spec.family, "label": item.spec.label, "split": item.spec.split}
        rows.append(about | setting | measures_of_open_law(found, targets[item.spec]))
    return _table(rows, PARAPHRASE_COLUMNS)


# ------------------------------------------------------------------------------------------------------------
# Reading lists of draws

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

    Attributes:
        values: the draws in order, as places among the admissible ones; `OUTSIDE` where one is not.
        reason: why the answer does not count; empty where it does.
    """

    values: tuple[int, ...]
    reason: str


def value_runs(text: str, forms: Mapping[str, int]) -> list[list[Value]]:
    """The runs of draws in a text: draws with nothing but separators, "and" or "then" between them.

    Args:
        forms: case-folded spellings and the place of the admissible value they stand for.

    A colon, an equals sign or any other word ends a run, except what must be meant as a draw and is none: another
    number where draws are numbers, or a word that stands alone between commas or line breaks inside a run. It is in
    the run, as `OUTSIDE`. Draws that are letters may be written without anything between them ("HTTH").
    """
    numeric = all(metrics.parse_number(form) is not None for form in forms)
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
    known = [i for i, (place, token) in enumerate(run) if place != OUTSIDE or metrics.parse_number(token) is not None]
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


# ------------------------------------------------------------------------------------------------------------
# Sampled: measures and what a perfect sampler gets


def perfect_tv(p: Floats, n: int) -> float:
    """Expected total variation between a law and the frequencies of ``n`` independent draws from it.

    Half the sum of the mean absolute deviations of binomial counts over n; by De Moivre's identity E|X - np| =
    2 m (1 - p) P(X = m) with m = floor(np) + 1 (Diaconis and Zabell, *Statistical Science* 6, 1991).

    Args:
        p: ``[k]`` probabilities. n: draws; nan for none.
    """
    if n == 0:
        return float("nan")
    m = np.floor(n * p) + 1
    return float((m * (1 - p) * stats.binom.pmf(m, n, p)).sum() / n)


def inversions(order: Sequence[int]) -> int:
    """How many pairs of a permutation stand in the opposite order; 0 for 0, 1, 2, ..."""
    return sum(a > b for a, b in itertools.combinations(order, 2))


def inversions_law(n: int) -> Floats:
    """``[n (n - 1) / 2 + 1]`` law of the inversions of a uniform permutation of n: independent uniform numbers on
    0, ..., j - 1 for j = 1, ..., n add up to it (Knuth, *The Art of Computer Programming* 3, section 5.1.1)."""
    law = np.ones(1)
    for j in range(2, n + 1):
        law = np.convolve(law, np.full(j, 1 / j))
    return law


def position_deviation(orders: Ints) -> float:
    """Largest deviation from 1/n in the matrix of how often each entry stands at each position.

    Args:
        orders: ``[m, n]`` permutations, each a row of places.
    """
    n = orders.shape[1]
    shares = (orders[:, :, None] == np.arange(n)).mean(axis=0)  # [position, entry]
    return float(np.abs(shares - 1 / n).max())


@functools.cache
def perfect_position_deviation(n: int, m: int, seed: int) -> float:
    """Expected `position_deviation` of ``m`` independent uniform permutations of n, from 1,000 simulations."""
    if m == 0:
        return float("nan")
    rng = np.random.default_rng([seed, n, m])
    plain = np.tile(np.arange(n), (m, 1))
    return float(np.mean([position_deviation(rng.permuted(plain, axis=1)) for _ in range(REPEATS)]))


def draws_measures(lists: Sequence[Sequence[int]], p: Floats) -> dict[str, float]:
    """Measures of answers that count, each a list of draws of one length (at least 2); all nan without any.

    Returns:
        ``pooled_tv`` (total variation of all draws together), ``within_tv`` (of the draws of one answer, averaged over
        answers), each with ``_perfect``, what independent draws are expected to get, and ``_ratio`` of the two: below
        1 for `within_tv` means that answers are more even than chance. ``repeats``, the share of draws that equal the
        one before, with ``repeats_perfect``, the sum of squared probabilities.
    """
    names = ("pooled_tv", "within_tv", "repeats")
    if not len(lists):
        measures = dict.fromkeys(names, float("nan"))
        return _beside(measures, dict.fromkeys(names, float("nan")), ratios=names[:2])
    values = np.array(lists)  # [answers, draws]
    counts = np.stack([(values == k).sum(axis=1) for k in range(len(p))], axis=1)  # [answers, k]
    measures = {
        "pooled_tv": metrics.total_variation(counts.sum(axis=0) / values.size, p),
        "within_tv": float(np.abs(counts / values.shape[1] - p).sum(axis=1).mean() / 2),
        "repeats": float((values[:, 1:] == values[:, :-1]).mean()),
    }
    perfect = {
        "pooled_tv": perfect_tv(p, values.size),
        "within_tv": perfect_tv(p, values.shape[1]),
        "repeats": float(p @ p),
    }
    return _beside(measures, perfect, ratios=names[:2])


def shuffle_measures(orders: Sequence[Sequence[int]], n: int, *, seed: int) -> dict[str, float]:
    """Measures of permutations of ``n`` entries; all nan without any.

    Args:
        orders: one row of places an answer, places counted in the order of the prompt.
        seed: of the simulation behind one expectation.

    Returns:
        ``first_tv`` (total variation of the first entry from uniform), ``position_deviation``, ``inversions_tv`` (of
        the number of inversions from its law), each with ``_perfect``, what as many uniform permutations are expected
        to get, and ``_ratio``; ``inversions``, their mean as a share of n (n - 1) / 2, and ``unchanged``, the share of
        answers in the order of the prompt, each with ``_perfect``.
    """
    m, distances = len(orders), ("first_tv", "position_deviation", "inversions_tv")
    if not m:
        measures = dict.fromkeys((*distances, "inversions", "unchanged"), float("nan"))
        return _beside(measures, dict(measures), ratios=distances)
    rows = np.array(orders, np.int64).reshape(m, n)
    turned, law, pairs = np.array([inversions(row) for row in rows.tolist()]), inversions_law(n), n * (n - 1) // 2
    even = np.full(n, 1 / n)
    measures = {
        "first_tv": metrics.total_variation(np.bincount(rows[:, 0], minlength=n) / m, even),
        "position_deviation": position_deviation(rows),
        "inversions_tv": metrics.total_variation(np.bincount(turned, minlength=len(law)) / m, law),
        "inversions": float(turned.mean()) / pairs,
        "unchanged": float((turned == 0).mean()),
    }
    perfect = {
        "first_tv": perfect_tv(even, m),
        "position_deviation": perfect_position_deviation(n, m, seed),
        "inversions_tv": perfect_tv(law, m),
        "inversions": 0.5,
        "unchanged": float(law[0]),
    }
    return _beside(measures, perfect, ratios=distances)


def _beside(measures: dict[str, float], perfect: dict[str, float], ratios: Sequence[str]) -> dict[str, float]:
    """Each measure, what a perfect sampler gets, and for some their ratio."""
    row: dict[str, float] = {}
    for name, value in measures.items():
        row |= {name: value, f"{name}_perfect": perfect[name]}
        if name in ratios:
            row[f"{name}_ratio"] = value / perfect[name]
    return row


def run_choices(ask: Ask, items: Sequence[Item], *, answers: int, max_new_tokens: int) -> pd.DataFrame:
    """Sample and measure the items of the closed suites, where an `ask` that goes another way hides the probabilities.

    Args:
        ask: draws answers. answers: how many for each item. max_new_tokens: longest answer.

    Returns:
        A row an item: ``suite, id, prompt`` and the measures of `choice_measures`, as of `run_exact`, with shares of
        answers for probabilities. Distances are biased upwards, the more the fewer answers are valid.
    """
    chosen = [item for item in items if isinstance(item, Choice)]
    rows = []
    drawn = ask([item.prompt for item in chosen], draws=answers, max_new_tokens=max_new_tokens) if chosen else []
    for item, written in zip(chosen, drawn, strict=True):
        place = {form: k for k, answer in enumerate(item.answers) for form in answer.spellings}
        read = [place[text.strip()] for text in written if text.strip() in place]
        with np.errstate(divide="ignore"):  # an answer that was not given has probability 0
            log_shares = np.log(np.bincount(read, minlength=len(item.answers)) / answers)
        measures = choice_measures(log_shares, target(item.answers), numbers_of(item.answers))
        rows.append({"suite": item.suite, "id": item.id, "prompt": item.prompt} | measures)
    return _table(rows, ("suite", "id", "prompt", "valid_mass", "normalised_tv"))


def run_sampled(
    ask: Ask, items: Sequence[Item], *, answers: int, max_new_tokens: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sample and measure the items of `draws` and `shuffles`; others are left out.

    Args:
        ask: draws answers. answers: how many for each item. max_new_tokens: longest answer.
        seed: of the simulation behind one expectation; sampling has its own.

    Returns:
        A row an item: ``suite, id, prompt, asked`` (draws in an answer, or entries), ``answers``, ``valid`` (share of
        answers that count), ``at_least_half`` (share with at least half the draws asked for, all admissible; nan for
        shuffles), and the measures of `draws_measures` and `shuffle_measures` on the answers that count, nan where
        they are the other suite's. Then a row an answer: ``suite, id, answer`` (its number), ``text, valid, reason``
        (empty where valid).
    """
    chosen = [item for item in items if isinstance(item, Draws | Shuffle)]
    rows, texts = [], []
    drawn = ask([item.prompt for item in chosen], draws=answers, max_new_tokens=max_new_tokens) if chosen else []
    for item, written in zip(chosen, drawn, strict=True):
        if isinstance(item, Draws):
            asked = item.draws
            readings = [read_draws(text, item) for text in written]
            lists = [reading.values for reading in readings if not reading.reason]
            measures = draws_measures(lists, target(item.answers))
            enough = [2 * len(r.values) >= asked and OUTSIDE not in r.values for r in readings]
            half = sum(enough) / len(written)
        else:
            asked = len(item.entries)
            readings = [read_shuffle(text, item) for text in written]
            lists = [reading.values for reading in readings if not reading.reason]
            measures = shuffle_measures(lists, asked, seed=seed)
            half = float("nan")
        about = {"suite": item.suite, "id": item.id, "prompt": item.prompt, "asked": asked, "answers": len(written)}
        rows.append(about | {"valid": len(lists) / len(written), "at_least_half": half} | measures)
        for number, (text, reading) in enumerate(zip(written, readings, strict=True)):
            row = {"suite": item.suite, "id": item.id, "answer": number, "text": text}
            texts.append(row | {"valid": not reading.reason, "reason": reading.reason})
    return _table(rows, SAMPLED_COLUMNS), _table(texts, TEXT_COLUMNS)
