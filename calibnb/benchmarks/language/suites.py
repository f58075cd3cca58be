"""Randomness asked for in ordinary language: stories, shares, conditions, ranges, lists of draws, shuffles.

Nothing in these prompts names a law by its symbol, but each fixes one. What a model does with it is measured as
exactly as the form of the answer allows:

- *One answer from a closed set* (`implicit`, `shares`, `conditionals`, `ranges`): the probability of every accepted
  spelling of every answer, summed. No sampling noise, hence no comparison with a perfect sampler.
- *Another wording of the study's prompt* (`paraphrases`): the open law of `trees.number_search`, as in structured
  sampling, so that nW1 and valid mass can be compared with those of the study's own wording.
- *Many draws in one answer* (`draws`, `shuffles`): sampled and parsed. Beside every distance stands what a perfect
  sampler is expected to get from as many draws, since even that is not zero.

The parser of the sampled suites is lenient about form (numbering, brackets, a sentence before the list) and strict
about content: an answer counts only with the number of draws asked for, all of them admissible. Where no answer
counts, measures are nan.
"""

from __future__ import annotations

import functools
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

from calibnb import yaml_files
from calibnb.errors import UserError
from calibnb.laws import parsing, specs
from calibnb.laws.families import FAMILIES
from calibnb.laws.family import ParameterError
from calibnb.laws.specs import Spec
from calibnb.trees.trie import Floats

BUNDLED = "bundled"  # the source that stands for the items of the library
EXACT = ("implicit", "shares", "conditionals", "ranges")
SUITES = (*EXACT, "draws", "shuffles", "paraphrases")
TOLERANCE = Fraction(1, 10**6)  # how far from 1 the probabilities of an item may sum
MAX_ANSWERS = 200  # of a closed set: a slip in a range should be an error, not a hang
SHUFFLED = (3, 6)  # entries of a list to shuffle, at least and at most
DIGITS = 4  # significant digits of printed parameters, as many as `specs.number` prints

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
    values = [parsing.parse_number(answer.text) for answer in answers]
    return None if None in values else np.array(values, np.float64)


def load_items(source: str | Path) -> list[Item]:
    """The items of a YAML file; its layout is described at the head of the bundled one.

    Parameters
    ----------
    source : str or Path
        "bundled", or the path of a file with any of the suites.

    Raises
    ------
    UserError
        An item is wrong; one line names the file, the suite, the item and what is wrong there.
    """
    if source == BUNDLED:
        with resources.as_file(resources.files("calibnb.benchmarks.language") / "items.yaml") as path:
            return _suites(str(path), yaml_files.read(path))
    return _suites(str(source), yaml_files.read(source))


def probability(raw: object) -> Fraction:
    """A decimal (0.6), a fraction ("1/6") or a sum of products of them ("1/2 * 2/3 + 1/2 * 1/5"), exactly.

    Raises
    ------
    ValueError
        For anything else.
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
        forms = parsing.spellings([text, *more])
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
