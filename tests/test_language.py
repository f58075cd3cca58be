"""Ordinary language: items are sound, the parser reads what models write, measures equal closed forms."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb import yaml_files
from calibnb.benchmarks.language import drawn, enumerated, suites
from calibnb.benchmarks.language import reading as language_reading
from calibnb.benchmarks.language.drawn import draws_measures
from calibnb.benchmarks.language.enumerated import choice_measures, w1_of_numbers
from calibnb.benchmarks.language.reading import read_draws, read_shuffle
from calibnb.benchmarks.language.suites import (
    EXACT,
    SUITES,
    Answer,
    Choice,
    Draws,
    Item,
    Paraphrase,
    Shuffle,
    load_items,
    probability,
    target,
)
from calibnb.benchmarks.structured.measures import Target, measures_of_open_law
from calibnb.errors import UserError
from calibnb.evidence import shuffles
from calibnb.evidence.bands import perfect_tv
from calibnb.evidence.shuffles import (
    inversions,
    inversions_law,
    perfect_position_deviation,
    position_deviation,
    shuffle_measures,
)
from calibnb.laws import distances, parsing, specs
from calibnb.models import chatformat
from calibnb.pipeline import params
from calibnb.trees.attention import Body
from calibnb.trees.number_search import number_tokens, open_law
from calibnb.trees.params import OpenParams

ITEMS = load_items("bundled")
WRITTEN = yaml_files.read(Path(suites.__file__).with_name("items.yaml"))
SEARCH = OpenParams(tolerance=0.5, max_nodes=40, nodes_per_pass=20)


def answers(law: dict[str, Fraction | int]) -> tuple[Answer, ...]:
    return tuple(Answer(text, Fraction(p), parsing.spellings([text])) for text, p in law.items())


def fair(*texts: str) -> tuple[Answer, ...]:
    return answers({text: Fraction(1, len(texts)) for text in texts})


# ------------------------------------------------------------------------------------------- bundled items


def test_every_suite_has_at_least_20_items_with_prompts_of_their_own() -> None:
    count = Counter(item.suite for item in ITEMS)
    assert set(count) == set(SUITES)
    assert min(count.values()) >= 20
    assert len({(item.suite, item.id) for item in ITEMS}) == len(ITEMS)
    assert len({item.prompt for item in ITEMS}) == len(ITEMS)
    assert all("  " not in item.prompt and item.prompt == item.prompt.strip() for item in ITEMS)


@pytest.mark.parametrize("item", [i for i in ITEMS if isinstance(i, Choice | Draws)], ids=lambda i: i.id)
def test_bundled_law(item: Choice | Draws) -> None:
    """Probabilities sum to 1 as the file writes them, spellings are disjoint, the prompt ends by naming the answers."""
    entry = WRITTEN[item.suite][item.id]
    if "answers" in entry:
        assert sum(probability(p) for p in entry["answers"].values()) == 1  # exactly, not within the tolerance
        assert len(set(target(item.answers))) > 1, "a uniform law is written as such"
    assert sum(answer.probability for answer in item.answers) == 1
    forms = [form for answer in item.answers for form in answer.spellings]
    assert len(set(forms)) == len(forms)
    assert all(answer.text in answer.spellings for answer in item.answers)
    last = item.prompt[item.prompt.rindex("Answer with ") :]
    assert item.prompt.endswith(".") and "?" not in last
    if suites.numbers_of(item.answers) is None and item.id != "weekdays-7":
        assert all(re.search(rf"\b{answer.text}\b", last) for answer in item.answers)
    else:
        assert re.search(r"digit|number|age|names of days", last) or all(a.text in last for a in item.answers)


WORDS = {5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten", 12: "twelve", 15: "fifteen", 20: "twenty"}


@pytest.mark.parametrize("item", [i for i in ITEMS if isinstance(i, Draws)], ids=lambda i: i.id)
def test_bundled_draws_name_their_count(item: Draws) -> None:
    assert f"Answer with {WORDS[item.draws]} " in item.prompt


@pytest.mark.parametrize("item", [i for i in ITEMS if isinstance(i, Shuffle)], ids=lambda i: i.id)
def test_bundled_lists_stand_in_their_prompt_in_order(item: Shuffle) -> None:
    places = [re.search(rf"\b{entry}\b", item.prompt) for entry in item.entries]
    starts = [place.start() for place in places if place]
    assert len(starts) == len(item.entries) and starts == sorted(starts)


def test_bundled_wordings_are_at_least_five_each_with_four_laws_that_the_study_measures() -> None:
    items = [item for item in ITEMS if isinstance(item, Paraphrase)]
    laws = Counter(item.wording for item in items)
    assert len(laws) >= 5 and min(laws.values()) >= 4
    study = params.load(Path(__file__).parents[1] / "params.yaml")
    template = study.prompt.template
    settings = {
        (s.label, s.split)
        for s in specs.build(study.families, study.data.validation_share, study.data.significant_digits)
        if s.selected
    }
    for item in items:
        assert (item.spec.label, item.spec.split) in settings
        assert item.prompt != specs.prompt(item.spec, template, study.prompt.parameter_names)
        for _, value in item.spec.parameters:
            assert re.search(rf"(?<![\d.]){re.escape(specs.number(value))}(?![\d])", item.prompt)


DIE = range(1, 7)
THIRDS = [Fraction(1, 3)] * 3


def law_of(cases: Sequence[str]) -> dict[str, Fraction]:
    """The law of equally likely cases."""
    return {case: Fraction(n, len(cases)) for case, n in Counter(cases).items()}


# Each story told again as equally likely cases.
RETOLD = {
    "die-six": ["Anna" if a == 6 else "Ben" for a in DIE],
    "two-coins": ["tea" if a and b else "coffee" for a in (0, 1) for b in (0, 1)],
    "die-then-coin": ["Carla" if a % 2 == 0 or b else "Dave" for a in DIE for b in (0, 1)],
    "two-boxes": ["red", "red", "blue"] * 5 + ["red", "blue", "blue", "blue", "blue"] * 3,
    "high-sum": ["high" if a + b >= 10 else "low" for a in DIE for b in DIE],
    "doubles": ["Lena" if a == b else "Max" for a in DIE for b in DIE],
    "rainy-commute": [
        ("bus" if i < 9 else "bike") if day < 2 else ("bike" if i < 8 else "bus") for day in range(5) for i in range(10)
    ],
    "suit-for-dessert": ["cake", "pie", "fruit", "fruit"],
    "picture-card": ["walk" if rank in (11, 12, 13) else "drive" for rank in range(1, 14) for suit in range(4)],
    "three-paints": ["red", "blue", "blue", "green", "green", "green"],
    "second-coin": [pair[1] for pair in itertools.permutations(["gold"] * 2 + ["silver"] * 3, 2)],
    "same-colour": ["Nora" if a == b else "Omar" for a, b in itertools.permutations("WWWBB", 2)],
    "three-alike": ["stay" if len(set(c)) == 1 else "go" for c in itertools.product("HT", repeat=3)],
    "throw-again": ["green" if a < 5 else "purple" if b % 2 else "yellow" for a in DIE for b in DIE],
    "two-machines": [
        ("yes" if i < 2 else "no") if m < 3 else ("yes" if i < 1 else "no") for m in range(10) for i in range(10)
    ],
    "soup-or-salad": ["soup" if day > 4 or coin else "salad" for day in range(7) for coin in (0, 1)],
    "journey": ["Oslo", "Oslo", "Rome", "Rome", "Rome", "Paris"],
    "even-number": [str(a) for a in DIE if a % 2 == 0],
    "at-least-one-head": ["yes" if a and b else "no" for a in (0, 1) for b in (0, 1) if a or b],
    "red-card": ["heart"] * 12 + ["diamond"] * 13,
    "higher-die": ["Ida" if a > b else "Jon" if b > a else "nobody" for a in DIE for b in DIE],
    "first-head": [
        ("Kim", "Lee", "Kim", "Lee")[c.index("H")] if "H" in c else "nobody" for c in itertools.product("HT", repeat=4)
    ],
    "five-keys": ["yes" if 0 in tried else "no" for tried in itertools.permutations(range(5), 2)],
    "grey-sky": ["wet" if grey and hour < 2 else "dry" for grey in (0, 1) for hour in range(3)],
    "sum-of-two-dice": [str(a + b) for a in DIE for b in DIE],
    "heads-of-four": [str(sum(c)) for c in itertools.product((0, 1), repeat=4)],
    "higher-of-two-dice": [str(max(a, b)) for a in DIE for b in DIE],
    "sixes-of-two": [str((a == 6) + (b == 6)) for a in DIE for b in DIE],
    "growing-tickets": [str(k) for k in range(1, 5) for _ in range(k)],
    "two-dice-10": [str(a + b) for a in DIE for b in DIE],
    "heads-of-two-8": [str(a + b) for a in (0, 1) for b in (0, 1)],
}


def test_all_conditionals_are_retold() -> None:
    assert {item.id for item in ITEMS if item.suite == "conditionals"} <= RETOLD.keys()


@pytest.mark.parametrize("name", RETOLD)
def test_law_equals_the_story_told_in_cases(name: str) -> None:
    (item,) = [item for item in ITEMS if item.id == name]
    assert isinstance(item, Choice | Draws)
    assert {answer.text: answer.probability for answer in item.answers} == law_of(RETOLD[name])


# -------------------------------------------------------------------------------------------- the loader

COIN = {"prompt": "Toss. Answer with heads or tails.", "answers": {"heads": "1/2", "tails": 0.5}}
LIST = {"prompt": "Shuffle a, b, c.", "items": ["a", "b", "c"]}
NORMAL = {
    "family": "gaussian",
    "split": "unseen",
    "parameters": {"mu": 5, "sigma": 2},
    "words": "mean {mu}, deviation {sigma}",
}


def wordings(law: object, template: object = "Draw from {words}.") -> object:
    return {"wordings": {"plain": template}, "laws": {"normal": law}}


def write(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "implicit": {"coin": COIN | {"also": {"heads": ["head"]}}},
            "ranges": {
                "whole": {"prompt": "?", "uniform": {"from": -1, "to": 1, "step": 1}},
                "half": {"prompt": "?", "uniform": {"from": 0.5, "to": 1.5, "step": 0.5}},
            },
            "draws": {"coin": COIN | {"draws": 4}},
            "shuffles": {"list": LIST},
            "paraphrases": wordings(NORMAL, "Draw from {words}; {distribution}, {parameters}."),
        },
    )
    coin, whole, half, draws, shuffle, paraphrase = load_items(path)
    assert isinstance(coin, Choice) and coin.answers == (
        Answer("heads", Fraction(1, 2), parsing.spellings(["heads", "head"])),
        Answer("tails", Fraction(1, 2), parsing.spellings(["tails"])),
    )
    assert isinstance(whole, Choice) and [a.text for a in whole.answers] == ["-1", "0", "1"]
    assert isinstance(half, Choice) and [a.text for a in half.answers] == ["0.5", "1.0", "1.5"]
    assert isinstance(draws, Draws) and draws.draws == 4
    assert isinstance(shuffle, Shuffle) and shuffle.entries == ("a", "b", "c")
    assert isinstance(paraphrase, Paraphrase) and paraphrase.spec.law.std() == 2
    expected = "Draw from mean 5, deviation 2; Gaussian, mean = 5, standard deviation = 2."
    assert (paraphrase.id, paraphrase.prompt) == ("plain/normal", expected)


def test_probabilities_that_sum_to_one_but_for_rounding_are_scaled(tmp_path: Path) -> None:
    thirds = {"prompt": "?", "answers": {"a": 0.3333333, "b": 0.3333333, "c": 0.3333333}}
    (item,) = load_items(write(tmp_path, {"shares": {"x": thirds}}))
    assert isinstance(item, Choice) and [a.probability for a in item.answers] == THIRDS


def without(block: dict[str, object], key: str) -> dict[str, object]:
    return {k: v for k, v in block.items() if k != key}


WRONG: dict[str, tuple[object, str]] = {
    "unknown suite": ({"stories": {"x": COIN}}, ": unknown suite stories; allowed: implicit, shares,"),
    "empty suite": ({"implicit": {}}, "implicit: must map at least one name"),
    "suite is a list": ({"implicit": [COIN]}, "implicit: must map at least one name"),
    "item is text": ({"implicit": {"x": "heads"}}, "implicit.x: must be a block of keys, got 'heads'"),
    "no prompt": ({"shares": {"x": without(COIN, "prompt")}}, "shares.x: prompt must be given"),
    "empty prompt": ({"shares": {"x": COIN | {"prompt": " "}}}, "shares.x: prompt must be text, got ' '"),
    "prompt is a number": ({"shares": {"x": COIN | {"prompt": 3}}}, "shares.x: prompt must be text, got 3"),
    "unknown key": ({"shares": {"x": COIN | {"law": 1}}}, "shares.x: unknown key law; allowed: prompt, answers,"),
    "no answers": ({"ranges": {"x": without(COIN, "answers")}}, "ranges.x: must have answers or uniform, got neither"),
    "both": ({"ranges": {"x": COIN | {"uniform": ["a", "b"]}}}, "ranges.x: must have answers or uniform, got both"),
    "one answer": ({"ranges": {"x": {"prompt": "?", "uniform": ["a"]}}}, "ranges.x: must have 2 to 200 answers, got 1"),
    "sum": (
        {"implicit": {"x": COIN | {"answers": {"a": "1/2", "b": "1/3"}}}},
        "implicit.x: probabilities must sum to 1, got 0.833333",
    ),
    "sum beyond the tolerance": (
        {"implicit": {"x": COIN | {"answers": {"a": 0.5, "b": 0.500002}}}},
        "implicit.x: probabilities must sum to 1, got 1",
    ),
    "no probability": (
        {"implicit": {"x": COIN | {"answers": {"a": "half", "b": 0.5}}}},
        "implicit.x: the probability of a must be a decimal or fraction in (0, 1), got 'half'",
    ),
    "impossible answer": (
        {"implicit": {"x": COIN | {"answers": {"a": 0, "b": 0.5, "c": 0.5}}}},
        "implicit.x: the probability of a must be a decimal or fraction in (0, 1), got 0",
    ),
    "shared spelling": (
        {"implicit": {"x": COIN | {"answers": {"May": "1/2", "may": "1/2"}}}},
        "implicit.x: answers May and may share the spelling 'may'",
    ),
    "shared number": (
        {"ranges": {"x": {"prompt": "?", "uniform": ["1.0", "1"]}}},
        "ranges.x: answers 1.0 and 1 share the spelling '1'",
    ),
    "shared by also": (
        {"implicit": {"x": COIN | {"also": {"tails": ["Heads."]}}}},
        "implicit.x: answers heads and tails share the spelling 'Heads.'",
    ),
    "also of no answer": (
        {"implicit": {"x": COIN | {"also": {"edge": ["rim"]}}}},
        "implicit.x: also names edge, which is no answer; answers: heads, tails",
    ),
    "also is no list": ({"implicit": {"x": COIN | {"also": {"heads": "h"}}}}, "implicit.x: also must map answers to"),
    "empty wording": ({"implicit": {"x": COIN | {"also": {"heads": [""]}}}}, "implicit.x: also.heads must be text"),
    "repeats": (
        {"ranges": {"x": {"prompt": "?", "uniform": ["a", "b", "a"]}}},
        "ranges.x: uniform must be without repeats",
    ),
    "no step": (
        {"ranges": {"x": {"prompt": "?", "uniform": {"from": 1, "to": 3}}}},
        "ranges.x.uniform: step must be given, got nothing",
    ),
    "steps miss the end": (
        {"ranges": {"x": {"prompt": "?", "uniform": {"from": 0, "to": 1, "step": 0.3}}}},
        "ranges.x: uniform must have a whole number of steps between from < to",
    ),
    "backwards": (
        {"ranges": {"x": {"prompt": "?", "uniform": {"from": 3, "to": 1, "step": 1}}}},
        "ranges.x: uniform must have a whole number of steps between from < to",
    ),
    "too long a range": (
        {"ranges": {"x": {"prompt": "?", "uniform": {"from": 0, "to": 1000000000, "step": 1}}}},
        "ranges.x: uniform must have a whole number of steps between from < to, at most 199",
    ),
    "range of words": (
        {"ranges": {"x": {"prompt": "?", "uniform": {"from": "a", "to": "c", "step": 1}}}},
        "ranges.x: uniform.from must be a number, got 'a'",
    ),
    "one draw": ({"draws": {"x": COIN | {"draws": 1}}}, "draws.x: draws must be an integer >= 2, got 1"),
    "draws as text": ({"draws": {"x": COIN | {"draws": "9"}}}, "draws.x: draws must be an integer >= 2, got '9'"),
    "separator in a draw": (
        {"draws": {"x": {"prompt": "?", "draws": 3, "uniform": ["1,5", "2,5"]}}},
        "draws.x: '1,5' holds ',', which separates draws",
    ),
    "short list": ({"shuffles": {"x": LIST | {"items": ["a", "b"]}}}, "shuffles.x: items must be a list of 3 to 6"),
    "list of numbers": ({"shuffles": {"x": LIST | {"items": [1, 2, 3]}}}, "shuffles.x: an entry of items must be text"),
    "repeated entry": (
        {"shuffles": {"x": LIST | {"items": ["a", "b", "A"]}}},
        "shuffles.x: items must be without repeats",
    ),
    "separator in an entry": (
        {"shuffles": {"x": LIST | {"items": ["a", "b", "c: d"]}}},
        "shuffles.x: 'c: d' holds ':', which separates draws",
    ),
    "no laws": ({"paraphrases": {"wordings": {"plain": "{words}"}}}, "paraphrases: laws must be given, got nothing"),
    "no placeholder": (
        {"paraphrases": wordings(without(NORMAL, "words"), "Draw.")},
        "paraphrases.wordings.plain: must have a placeholder for the law, got none",
    ),
    "broken braces": (
        {"paraphrases": wordings(NORMAL, "Draw {words")},
        "paraphrases.wordings.plain: must be text with placeholders in braces",
    ),
    "styled placeholder": (
        {"paraphrases": wordings(NORMAL, "Draw {words:>9}")},
        "paraphrases.wordings.plain: placeholders must be names in braces",
    ),
    "missing text": (
        {"paraphrases": wordings(NORMAL, "{words} {story}")},
        "paraphrases.laws.normal: story must be given, got nothing",
    ),
    "unused text": (
        {"paraphrases": wordings(NORMAL | {"story": "{mu} {sigma}"})},
        "paraphrases.laws.normal: unknown key story; allowed: family, split, parameters, words",
    ),
    "unknown family": (
        {"paraphrases": wordings(NORMAL | {"family": "normal"})},
        "paraphrases.laws.normal: family must be one of uniform, gaussian,",
    ),
    "family is a list": (
        {"paraphrases": wordings(NORMAL | {"family": ["gaussian"]})},
        "paraphrases.laws.normal: family must be text, got ['gaussian']",
    ),
    "unknown split": (
        {"paraphrases": wordings(NORMAL | {"split": "test"})},
        "paraphrases.laws.normal: split must be one of train, validation, unseen, held_out, got 'test'",
    ),
    "unknown parameter": (
        {"paraphrases": wordings(NORMAL | {"parameters": {"mu": 1, "sd": 2}})},
        "paraphrases.laws.normal.parameters: unknown key sd; allowed: mu, sigma",
    ),
    "parameter is text": (
        {"paraphrases": wordings(NORMAL | {"parameters": {"mu": "1", "sigma": 2}})},
        "paraphrases.laws.normal: parameters.mu must be a number, got '1'",
    ),
    "parameter out of its domain": (
        {"paraphrases": wordings(NORMAL | {"parameters": {"mu": 1, "sigma": 0}})},
        "paraphrases.laws.normal.parameters: sigma: must be > 0, got 0",
    ),
    "parameter not in the text": (
        {"paraphrases": wordings(NORMAL | {"words": "mean {mu}"})},
        "paraphrases.laws.normal.words: must use each of {mu}, {sigma} and no other placeholder, got 'mean {mu}'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file(name: str, tmp_path: Path) -> None:
    data, message = WRONG[name]
    path = write(tmp_path, data)
    with pytest.raises(UserError) as raised:
        load_items(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: ") and message in text and "\n" not in text


def test_a_repeated_id_and_an_unquoted_yes_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    item = "{prompt: p, uniform: [a, b]}"
    path.write_text(f"implicit:\n  coin: {item}\n  coin: {item}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.yaml: line 3: must be YAML: key coin is given twice"):
        load_items(path)
    path.write_text("implicit:\n  coin:\n    prompt: p\n    answers: {yes: 1/2, no: 1/2}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.yaml: line 4: must be YAML: a key is not text"):
        load_items(path)
    with pytest.raises(UserError, match="must be a readable file"):
        load_items(tmp_path / "absent.yaml")


# -------------------------------------------------------------------------------------------- the parser

ROLLS = Draws("draws", "die", "?", fair(*"123456"), 5)
FLIPS = Draws(
    "draws",
    "coin",
    "?",
    tuple(Answer(t, Fraction(1, 2), parsing.spellings([t, t[0]])) for t in ("heads", "tails")),
    4,
)
STEPS = Draws("draws", "steps", "?", fair("-1", "0", "1"), 3)
TITLES = Shuffle("shuffles", "titles", "?", ("Sun", "Moon", "Old Sun", "Star"))
DIGITS = Shuffle("shuffles", "digits", "?", ("1", "2", "3", "4"))
LETTERS = Shuffle("shuffles", "letters", "?", ("A", "B", "C", "D"))


@pytest.mark.parametrize(
    "text",
    [
        "3, 1, 6, 6, 2",
        "3,1,6,6,2",
        "3 1 6 6 2",
        "3\n1\n6\n6\n2",
        " 3; 1; 6; 6; 2.\n",
        "[3, 1, 6, 6, 2]",
        "(3), (1), (6), (6), (2)",
        "3 | 1 | 6 | 6 | 2",
        "3 - 1 - 6 - 6 - 2",
        "3, 1, 6, 6, and 2",
        "3, 1, 6, 6 and 2.",
        "**3**, **1**, **6**, **6**, **2**",
        "`3, 1, 6, 6, 2`",
        "3.0, 1.0, 6.0, 6.0, 2.0",
        "1. 3\n2. 1\n3. 6\n4. 6\n5. 2",
        "1) 3\n2) 1\n3) 6\n4) 6\n5) 2\n",
        "1: 3, 2: 1, 3: 6, 4: 6, 5: 2",
        "(1) 3 (2) 1 (3) 6 (4) 6 (5) 2",
        "1. 3 2. 1 3. 6 4. 6 5. 2",
        "1 - 3\n2 - 1\n3 - 6\n4 - 6\n5 - 2",
        "**1.** 3\n**2.** 1\n**3.** 6\n**4.** 6\n**5.** 2",
        "Roll 1: 3\nRoll 2: 1\nRoll 3: 6\nRoll 4: 6\nRoll 5: 2",
        "Roll 1: 3, roll 2: 1, roll 3: 6, roll 4: 6, roll 5: 2",
        "Draw #1 = 3\nDraw #2 = 1\nDraw #3 = 6\nDraw #4 = 6\nDraw #5 = 2",
        "- 3\n- 1\n- 6\n- 6\n- 2",
        "* 3\n* 1\n* 6\n* 6\n* 2",
        "Here are 5 draws of a fair six-sided die: 3, 1, 6, 6, 2",
        "Sure! Here are five draws:\n\n3, 1, 6, 6, 2\n\nI hope this helps!",
        "A die with 6 sides gives 3, 1, 6, 6, 2 this time.",
        "The numbers from 1 to 6 are equally likely: 3 1 6 6 2",
        "I rolled the die 5 times.\n1. 3\n2. 1\n3. 6\n4. 6\n5. 2",
        "Numbers: 1, 2, 3\nDraws: 3, 1, 6, 6, 2",
        "3, 1, 6, 6, 2, etc.",
    ],
)
def test_five_rolls_in_many_formats(text: str) -> None:
    reading = read_draws(text, ROLLS)
    assert reading.reason == ""
    assert reading.values == (2, 0, 5, 5, 1)


@pytest.mark.parametrize(
    ("text", "reason", "values"),
    [
        ("", "empty", ()),
        (" \n", "empty", ()),
        ("I cannot roll dice.", "nothing admissible", ()),
        ("The 3rd roll", "nothing admissible", ()),
        ("3, 1, 6", "3 values instead of 5", (2, 0, 5)),
        ("3, 1, 6, 6, 2, 4", "6 values instead of 5", (2, 0, 5, 5, 1, 3)),
        ("3, 1, 7, 6, 2", "'7' is not admissible", (2, 0, -1, 5, 1)),
        ("3, 1, 0, 6, 2", "'0' is not admissible", (2, 0, -1, 5, 1)),
        ("7, 1, 3, 6, 2", "'7' is not admissible", (-1, 0, 2, 5, 1)),
        ("3, 1, -6, 6, 2", "'-6' is not admissible", (2, 0, -1, 5, 1)),
        ("3, 1, 2.5, 6, 2", "'2.5' is not admissible", (2, 0, -1, 5, 1)),
        ("3, 1, six, 6, 2", "'six' is not admissible", (2, 0, -1, 5, 1)),
        ("31662", "'31662' is not admissible", (-1,)),
        ("1.\n2.\n3.\n4.\n", "4 values instead of 5", (0, 1, 2, 3)),
        ("Roll: 3\nRoll: 1\nRoll: 6\nRoll: 6\nRoll: 2", "1 values instead of 5", (2,)),
    ],
)
def test_rejected_rolls(text: str, reason: str, values: tuple[int, ...]) -> None:
    reading = read_draws(text, ROLLS)
    assert (reading.reason, reading.values) == (reason, values)


@pytest.mark.parametrize(
    "text",
    [
        "heads, tails, tails, heads",
        "Heads, Tails, Tails, Heads.",
        "HEADS TAILS TAILS HEADS",
        "heads\ntails\ntails\nheads",
        "1. Heads\n2. Tails\n3. Tails\n4. Heads",
        "1. heads 2. tails 3. tails 4. heads",
        "Flip 1: Heads\nFlip 2: Tails\nFlip 3: Tails\nFlip 4: Heads",
        '["heads", "tails", "tails", "heads"]',
        "heads, then tails, then tails and heads",
        "H, T, T, H",
        "HTTH",
        "h-t-t-h",
        "A coin has heads and tails. Result: heads, tails, tails, heads",
        "heads → tails → tails → heads",
        "Sure, heads, tails, tails, heads",
        "The flips are:\nheads, tails, tails, heads\nEnjoy\n",
    ],
)
def test_four_flips_in_many_formats(text: str) -> None:
    reading = read_draws(text, FLIPS)
    assert (reading.reason, reading.values) == ("", (0, 1, 1, 0))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("heads, tails, edge, heads", "'edge' is not admissible"),
        ("heads, tails", "2 values instead of 4"),
        ("headstails", "nothing admissible"),
        ("forehead", "nothing admissible"),
        ("It is not possible to say.", "nothing admissible"),
        ("heads, tails, tails, heads, tails", "5 values instead of 4"),
        ("heads (1), tails (2)", "1 values instead of 4"),
    ],
)
def test_rejected_flips(text: str, reason: str) -> None:
    assert read_draws(text, FLIPS).reason == reason


def test_signs_are_read() -> None:
    for text in ("-1, 0, 1", "−1, 0, 1", "-1 0 1", "- -1\n- 0\n- 1", "[-1,0,1]", "1. -1\n2. 0\n3. 1"):
        assert read_draws(text, STEPS) == language_reading.Reading((0, 1, 2), "")
    assert read_draws("1-0-1", STEPS).values == (2, 1, 2)


@given(
    st.lists(st.integers(0, 5), min_size=5, max_size=5),
    st.sampled_from([", ", ",", " ", "\n", "; ", " | ", " and "]),
    st.sampled_from(["", "Here you go: ", "Rolling the die 5 times gives\n", "["]),
    st.sampled_from(["", ".", "]", "\nDone!", " as asked"]),
)
def test_reading_undoes_writing(values: list[int], separator: str, before: str, after: str) -> None:
    text = before + separator.join(str(v + 1) for v in values) + after
    assert read_draws(text, ROLLS) == language_reading.Reading(tuple(values), "")


@given(st.permutations(range(4)), st.sampled_from([", ", "\n", "; ", " > ", " -> "]), st.booleans())
def test_reading_a_shuffle_undoes_writing_it(order: list[int], separator: str, numbered: bool) -> None:
    for item in (TITLES, DIGITS, LETTERS):
        parts = [f"{n + 1}. " * numbered + item.entries[i] for n, i in enumerate(order)]
        text = ("\n" if numbered else separator).join(parts)
        assert read_shuffle(text, item) == language_reading.Reading(tuple(order), "")


@pytest.mark.parametrize(
    ("text", "values", "reason"),
    [
        ("old sun, STAR, moon, sun", (2, 3, 1, 0), ""),
        ("The list Sun, Moon, Old Sun, Star becomes Star, Sun, Moon, Old Sun.", (3, 0, 1, 2), ""),
        ("Original: Sun, Moon, Old Sun, Star\nShuffled: Star, Sun, Moon, Old Sun", (3, 0, 1, 2), ""),
        ("Sun, Moon, Star", (0, 1, 3), "3 values instead of 4"),
        ("Sun, Moon, Sun, Star", (0, 1, 0, 3), "'sun' occurs twice"),
        ("Sun, Moon, Old Sun, Star, Sun", (0, 1, 2, 3, 0), "5 values instead of 4"),
        ("Sun, Moon, Comet, Star", (0, 1, -1, 3), "'comet' is not admissible"),
        ("Sunday", (), "nothing admissible"),
        ("", (), "empty"),
    ],
)
def test_shuffles_read_and_rejected(text: str, values: tuple[int, ...], reason: str) -> None:
    assert read_shuffle(text, TITLES) == language_reading.Reading(values, reason)


def test_shuffled_numbers_and_letters() -> None:
    assert read_shuffle("1. 3\n2. 1\n3. 4\n4. 2", DIGITS).values == (2, 0, 3, 1)
    assert read_shuffle("1, 2, 3, 4", DIGITS).values == (0, 1, 2, 3)
    assert read_shuffle("BDAC", LETTERS).values == (1, 3, 0, 2)
    assert read_shuffle("A new order is b, d, a, c", LETTERS).values == (1, 3, 0, 2)
    assert read_shuffle("3, 1, 5, 2", DIGITS).reason == "'5' is not admissible"


@given(st.one_of(st.text(), st.text("12 3.,:-()#\nheadstılİſK|*'"), st.from_regex(r"([0-9]{1,3}[.):] ?){0,9}")))
def test_any_text_is_read_one_way_or_the_other(text: str) -> None:
    """Whatever a model writes: a reading that counts has the draws asked for, any other a reason."""
    readings = [(read_draws(text, item), item.draws, len(item.answers)) for item in (ROLLS, FLIPS, STEPS)]
    readings += [(read_shuffle(text, item), 4, 4) for item in (TITLES, DIGITS, LETTERS)]
    for reading, asked, kinds in readings:
        counts = len(reading.values) == asked and all(0 <= value < kinds for value in reading.values)
        assert counts or reading.reason
        assert set(reading.values) <= {language_reading.OUTSIDE, *range(kinds)}


def test_huge_numbers_and_foreign_letters_are_no_draws() -> None:
    assert read_draws("9" * 5000 + ": 3", ROLLS).reason == f"'{'9' * 20}' is not admissible"
    assert read_shuffle("Sun, Moon, Old Sun, Stαr", TITLES).reason == "3 values instead of 4"
    dice = Shuffle("shuffles", "i", "?", ("tie", "pie", "lie"))
    assert read_shuffle("tıe, pie, lie", dice).reason == "2 values instead of 3"


@pytest.mark.parametrize("item", [i for i in ITEMS if isinstance(i, Draws)], ids=lambda i: i.id)
def test_every_bundled_list_of_draws_can_be_read(item: Draws) -> None:
    rng = np.random.default_rng(5)
    values = tuple(rng.integers(len(item.answers), size=item.draws).tolist())
    texts = [item.answers[v].text for v in values]
    numbered = "\n".join(f"{n}. {text}" for n, text in enumerate(texts, 1))
    for written in (", ".join(texts), "\n".join(texts), numbered, f"Here they are: {', '.join(texts).title()}."):
        assert read_draws(written, item) == language_reading.Reading(values, "")


@pytest.mark.parametrize("item", [i for i in ITEMS if isinstance(i, Shuffle)], ids=lambda i: i.id)
def test_every_bundled_shuffle_can_be_read(item: Shuffle) -> None:
    order = tuple(np.random.default_rng(6).permutation(len(item.entries)).tolist())
    texts = [item.entries[i] for i in order]
    numbered = "\n".join(f"{n}. {text}" for n, text in enumerate(texts, 1))
    for written in (", ".join(texts), " ".join(texts), numbered, f"My order: {', '.join(texts).upper()}."):
        assert read_shuffle(written, item) == language_reading.Reading(order, "")


# ---------------------------------------------------------------------------- measures of a closed set


def test_choice_measures_by_hand() -> None:
    """Half of the mass is on answers, split 4 to 1 where the target is 6 to 4."""
    found = choice_measures(np.log([0.4, 0.1]), np.array([0.6, 0.4]), None)
    assert found["valid_mass"] == pytest.approx(0.5)
    assert found["total_variation"] == pytest.approx(0.2)
    assert found["chance_tv"] == pytest.approx(0.4)
    assert found["normalised_tv"] == pytest.approx(0.5)
    assert found["total_variation_all"] == pytest.approx((0.2 + 0.3 + 0.5) / 2)
    assert np.isnan(found["w1"]) and np.isnan(found["nw1"])


def test_the_target_gets_0_and_its_likeliest_answer_1() -> None:
    p = np.array([0.2, 0.5, 0.3])
    perfect = choice_measures(np.log(p), p, np.array([1.0, 2.0, 3.0]))
    assert perfect["valid_mass"] == pytest.approx(1)
    for name in ("total_variation", "normalised_tv", "total_variation_all", "w1", "nw1"):
        assert perfect[name] == pytest.approx(0, abs=1e-12)
    with np.errstate(divide="ignore"):
        constant = choice_measures(np.log([0.0, 0.01, 0.0]), p, np.array([1.0, 2.0, 3.0]))
    assert constant["normalised_tv"] == pytest.approx(1)
    assert constant["nw1"] == pytest.approx(1)  # it is the median too
    assert constant["total_variation_all"] == pytest.approx(0.99)


def test_no_mass_at_all_has_no_shape() -> None:
    found = choice_measures(np.full(2, -np.inf), np.array([0.5, 0.5]), np.array([1.0, 2.0]))
    assert found["valid_mass"] == 0 and found["total_variation_all"] == pytest.approx(1)
    assert all(np.isnan(found[name]) for name in ("total_variation", "normalised_tv", "w1", "nw1"))


weights = st.lists(st.floats(0.01, 1), min_size=8, max_size=8)


@given(weights, st.integers(-9, 9))
def test_w1_equals_the_study_s_on_a_uniform_range(q: list[float], low: int) -> None:
    values, masses = np.arange(low, low + 8.0), np.array(q) / sum(q)
    law = stats.randint(low, low + 8)
    order = np.random.default_rng(1).permutation(8)
    w1, nw1 = w1_of_numbers(values[order], np.full(8, 1 / 8), masses[order])
    assert w1 == pytest.approx(distances.w1(values, masses, law), abs=1e-9)
    assert nw1 == pytest.approx(distances.normalised_w1(values, masses, law, low, low + 7), abs=1e-9)


@given(weights, weights)
def test_w1_equals_scipy_on_uneven_numbers(p: list[float], q: list[float]) -> None:
    values = np.array([0.0, 0.5, 1.0, 4.0, -2.0, 10.0, 2.5, 3.0])
    p_, q_ = np.array(p) / sum(p), np.array(q) / sum(q)
    w1, nw1 = w1_of_numbers(values, p_, q_)
    assert w1 == pytest.approx(stats.wasserstein_distance(values, values, p_, q_), abs=1e-9)
    scale = min(float(np.abs(values - v) @ p_) for v in values)  # the median minimises it
    assert nw1 == pytest.approx(w1 / scale)


# ----------------------------------------------------------------------------- perfect samplers


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.2, 0.3, 0.5], [0.25] * 4, [0.05, 0.95]])
@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_perfect_tv_equals_the_sum_over_all_samples(p: list[float], n: int) -> None:
    law = np.array(p)
    expected = 0.0
    for sample in itertools.product(range(len(p)), repeat=n):
        share = np.bincount(sample, minlength=len(p)) / n
        expected += float(np.prod(law[list(sample)])) * distances.total_variation(share, law)
    assert perfect_tv(law, n) == pytest.approx(expected, abs=1e-12)


def test_perfect_tv_of_nothing_and_of_much() -> None:
    assert np.isnan(perfect_tv(np.array([0.5, 0.5]), 0))
    n = 1_000_000  # E|X - np| is near sqrt(2 n p (1 - p) / pi)
    assert perfect_tv(np.array([0.5, 0.5]), n) == pytest.approx(np.sqrt(0.5 / np.pi / n), rel=1e-4)


@pytest.mark.parametrize("n", range(1, 7))
def test_inversions_law_equals_the_count_over_all_permutations(n: int) -> None:
    counts = np.bincount([inversions(order) for order in itertools.permutations(range(n))])
    np.testing.assert_allclose(inversions_law(n), counts / counts.sum(), atol=1e-12)


def test_inversions_by_hand() -> None:
    assert inversions([0, 1, 2, 3]) == 0
    assert inversions([3, 2, 1, 0]) == 6
    assert inversions([1, 0, 3, 2]) == 2
    assert inversions([2, 0, 1]) == 2


def test_perfect_position_deviation_equals_the_mean_over_all_pairs_of_permutations() -> None:
    orders = list(itertools.permutations(range(3)))
    values = [position_deviation(np.array(pair)) for pair in itertools.product(orders, repeat=2)]
    spread = np.std(values) / np.sqrt(shuffles.REPEATS)
    assert spread > 0
    assert perfect_position_deviation(3, 2, 7) == pytest.approx(np.mean(values), abs=4 * spread)
    assert perfect_position_deviation(3, 1, 7) == pytest.approx(2 / 3)  # one permutation: an entry is always there
    assert np.isnan(perfect_position_deviation(3, 0, 7))


# ------------------------------------------------------------------------- measures of lists of draws


def test_draws_measures_by_hand() -> None:
    found = draws_measures([(0, 0, 0, 1), (1, 1, 0, 0)], np.array([0.5, 0.5]))
    assert found["pooled_tv"] == pytest.approx(1 / 8)
    assert found["within_tv"] == pytest.approx((1 / 4 + 0) / 2)
    assert found["repeats"] == pytest.approx(4 / 6)
    assert found["repeats_perfect"] == 0.5
    assert found["within_tv_perfect"] == pytest.approx((2 * 1 / 2 + 8 * 1 / 4 + 6 * 0) / 16)
    assert found["within_tv_ratio"] == pytest.approx(found["within_tv"] / found["within_tv_perfect"])
    assert found["pooled_tv_perfect"] == pytest.approx(perfect_tv(np.array([0.5, 0.5]), 8))
    assert found["pooled_tv_ratio"] == pytest.approx(found["pooled_tv"] / found["pooled_tv_perfect"])


def test_a_perfect_sampler_of_draws_has_ratios_near_1() -> None:
    p = np.array([0.1, 0.2, 0.7])
    rng = np.random.default_rng(3)
    runs = [draws_measures(rng.choice(3, size=(20, 10), p=p).tolist(), p) for _ in range(300)]
    for name in ("pooled_tv_ratio", "within_tv_ratio"):
        values = np.array([run[name] for run in runs])
        assert values.mean() == pytest.approx(1, abs=4 * values.std() / np.sqrt(300))
    repeats = np.array([run["repeats"] for run in runs])
    assert repeats.mean() == pytest.approx(0.54, abs=4 * repeats.std() / np.sqrt(300))


def test_shuffle_measures_by_hand() -> None:
    found = shuffle_measures([(0, 1, 2), (0, 2, 1)], 3, seed=1)
    assert found["first_tv"] == pytest.approx(2 / 3)
    assert found["position_deviation"] == pytest.approx(2 / 3)  # entry 0 always comes first
    assert found["inversions"] == pytest.approx((0 + 1) / 2 / 3)
    assert found["inversions_perfect"] == 0.5
    law = np.array([1, 2, 2, 1]) / 6
    assert found["inversions_tv"] == pytest.approx(distances.total_variation([0.5, 0.5, 0, 0], law))
    assert found["unchanged"] == 0.5 and found["unchanged_perfect"] == pytest.approx(1 / 6)
    assert found["first_tv_perfect"] == pytest.approx(perfect_tv(np.full(3, 1 / 3), 2))
    assert found["inversions_tv_perfect"] == pytest.approx(perfect_tv(law, 2))
    assert found["position_deviation_perfect"] == perfect_position_deviation(3, 2, 1)
    for name in ("first_tv", "position_deviation", "inversions_tv"):
        assert found[f"{name}_ratio"] == pytest.approx(found[name] / found[f"{name}_perfect"])


def test_all_permutations_once_are_uniform() -> None:
    found = shuffle_measures(list(itertools.permutations(range(4))), 4, seed=1)
    for name in ("first_tv", "position_deviation", "inversions_tv"):
        assert found[name] == pytest.approx(0, abs=1e-12)
    assert found["inversions"] == pytest.approx(0.5)
    assert found["unchanged"] == pytest.approx(1 / 24)


def test_without_an_answer_that_counts_all_measures_are_nan() -> None:
    nothing, something = draws_measures([], np.array([0.5, 0.5])), draws_measures([(0, 1)], np.array([0.5, 0.5]))
    assert list(nothing) == list(something) and np.isnan(list(nothing.values())).all()
    none, one = shuffle_measures([], 3, seed=1), shuffle_measures([(0, 1, 2)], 3, seed=1)
    assert list(none) == list(one) and np.isnan(list(none.values())).all()


def test_run_sampled() -> None:
    asked: list[tuple[list[str], int, int]] = []

    def ask(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        asked.append((list(prompts), draws, max_new_tokens))
        written = {
            "coin?": ["heads, tails, tails, heads", "heads, heads", "heads, edge, tails, heads", "no"],
            "list?": ["Moon, Sun, Star, Old Sun", "Sun", "Sun, Moon, Old Sun, Star", "Sun, Sun, Sun, Sun"],
            "die?": [""] * 4,
        }
        return [written[prompt] for prompt in prompts]

    def with_prompt(item: Draws | Shuffle, prompt: str) -> Item:
        return type(item)(**(vars(item) | {"prompt": prompt}))

    coin = Choice("implicit", "coin", "no sampling here", fair("heads", "tails"))
    items = [coin, with_prompt(FLIPS, "coin?"), with_prompt(TITLES, "list?"), with_prompt(ROLLS, "die?")]
    table, texts = drawn.run_sampled(ask, items, answers=4, max_new_tokens=99, seed=2)
    assert asked == [(["coin?", "list?", "die?"], 4, 99)]
    assert table["id"].tolist() == ["coin", "titles", "die"]
    assert table["asked"].tolist() == [4, 4, 5] and table["answers"].tolist() == [4, 4, 4]
    assert table["valid"].tolist() == [0.25, 0.5, 0.0]
    flips, titles, rolls = (row for _, row in table.iterrows())
    assert flips["at_least_half"] == 0.5 and np.isnan(titles["at_least_half"]) and rolls["at_least_half"] == 0
    assert flips["pooled_tv"] == 0 and flips["pooled_tv_perfect"] == pytest.approx(perfect_tv(np.full(2, 0.5), 4))
    assert np.isnan(flips["first_tv"]) and np.isnan(titles["pooled_tv"]) and np.isnan(rolls["pooled_tv"])
    assert titles["first_tv"] == 0.5 and titles["unchanged"] == 0.5
    assert titles["position_deviation_perfect"] == perfect_position_deviation(4, 2, 2)
    assert len(texts) == 12 and texts["answer"].tolist() == [0, 1, 2, 3] * 3
    assert texts["reason"].tolist()[:4] == [
        "",
        "2 values instead of 4",
        "'edge' is not admissible",
        "nothing admissible",
    ]
    assert (texts["valid"] == (texts["reason"] == "")).all()
    assert set(texts["text"][8:]) == {""} and set(texts["reason"][8:]) == {"empty"}


def test_closed_suites_by_sampling() -> None:
    asked: list[tuple[list[str], int, int]] = []

    def ask(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        asked.append((list(prompts), draws, max_new_tokens))
        return [["heads", " Heads.\n", "TAILS", "edge", "", "heads or tails", "heads", "h"], [""] * 8]

    coin = Choice("implicit", "coin", "coin?", fair("heads", "tails"))
    two = Choice("ranges", "two", "1 or 2?", fair("1", "2"))
    table = drawn.run_choices(ask, [FLIPS, coin, two], answers=8, max_new_tokens=9)
    assert asked == [(["coin?", "1 or 2?"], 8, 9)]
    assert table["id"].tolist() == ["coin", "two"] and table["valid_mass"].tolist() == pytest.approx([0.5, 0.0])
    first, second = (row for _, row in table.iterrows())
    assert first["total_variation"] == pytest.approx(0.25) and first["normalised_tv"] == pytest.approx(0.5)
    assert first["total_variation_all"] == pytest.approx((abs(3 / 8 - 1 / 2) + abs(1 / 8 - 1 / 2) + 1 / 2) / 2)
    assert np.isnan(first["nw1"]) and np.isnan(second[["total_variation", "normalised_tv", "nw1"]].astype(float)).all()
    none = drawn.run_choices(ask, [FLIPS], answers=8, max_new_tokens=9)
    assert len(none) == 0 and {"suite", "id", "valid_mass", "normalised_tv"} <= set(none)


# ---------------------------------------------------------------------------------- exact, on tiny models


@pytest.fixture(scope="module")
def chat(digit_tokenizer: PreTrainedTokenizerFast) -> chatformat.ChatFormat:
    return chatformat.chat_format(digit_tokenizer)


@torch.inference_mode()
def direct(model: PreTrainedModel, chat: chatformat.ChatFormat, prompt: str, text: str) -> float:
    """Probability of an answer as a plain product over its tokens, the end token included."""
    start, own = chat.prompt_ids(prompt), [*chat.answer_ids([text])[0], chat.end_id]
    logp = torch.log_softmax(model(torch.tensor([start + own])).logits[0].double(), -1)
    return float(np.exp(sum(float(logp[len(start) - 1 + i, token]) for i, token in enumerate(own))))


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_run_exact_equals_the_product_of_probabilities(architecture: str, chat: chatformat.ChatFormat) -> None:
    model = tiny_model(architecture, len(chat.tokenizer))
    choices = [
        Choice("implicit", "coin", "Toss.", answers({"H": Fraction(1, 4), "T": Fraction(3, 4)})),
        Choice(
            "ranges", "number", "A number.", answers({"2": Fraction(1, 2), "9": Fraction(1, 3), "10": Fraction(1, 6)})
        ),
    ]
    table = enumerated.run_exact(Body(model), chat, [FLIPS, *choices, TITLES])
    assert table["id"].tolist() == ["coin", "number"]
    for item, (_, row) in zip(choices, table.iterrows(), strict=True):
        masses = np.array([sum(direct(model, chat, item.prompt, s) for s in a.spellings) for a in item.answers])
        p = target(item.answers)
        np.testing.assert_allclose(row["model"], masses, rtol=1e-3)
        assert row["valid_mass"] == pytest.approx(masses.sum(), rel=1e-3)
        q = masses / masses.sum()
        assert row["total_variation"] == pytest.approx(np.abs(p - q).sum() / 2, rel=1e-3)
        assert row["normalised_tv"] == pytest.approx(row["total_variation"] / (1 - p.max()))
        assert row["total_variation_all"] == pytest.approx((np.abs(p - masses).sum() + 1 - masses.sum()) / 2)
        assert row["answers"] == [a.text for a in item.answers] and row["target"] == p.tolist()
        assert row["top"] == item.answers[int(masses.argmax())].text
        assert row["top_probability"] == pytest.approx(q.max(), rel=1e-3)
    assert np.isnan(table["w1"][0])
    q = np.array(table["model"][1]) / np.sum(table["model"][1])
    assert table["w1"][1] == pytest.approx(7 * abs(1 / 2 - q[0]) + abs(5 / 6 - q[0] - q[1]))


def test_all_bundled_questions_run_exactly(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    items = [item for item in ITEMS if item.suite in EXACT]
    few = [item for i, item in enumerate(items) if i % 9 == 0]
    table = enumerated.run_exact(Body(llama), chat, few)
    assert table["id"].tolist() == [item.id for item in few]
    assert (table["valid_mass"] > 0).all() and (table["valid_mass"] < 1).all()
    assert table["total_variation"].between(0, 1).all()
    assert (table["chance_tv"] == [1 - max(p) for p in table["target"]]).all()
    for item in items:
        chat.answer_ids([form for answer in item.answers for form in answer.spellings])  # raises where one merges


def test_answers_that_a_tokenizer_cannot_tell_apart_are_an_error(
    chat: chatformat.ChatFormat, llama: PreTrainedModel
) -> None:
    item = Choice("implicit", "moon", "?", fair("☽", "☾"))  # both are the unknown token
    with pytest.raises(UserError, match=r"implicit\.moon: the tokenizer writes '☾' like another answer"):
        enumerated.run_exact(Body(llama), chat, [item])


def test_tables_without_a_kind_of_suite_can_be_read(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    """The notebooks select columns by name, also where a file of items has none of their suites."""
    vocabulary = chat.tokenizer.get_vocab()
    none = enumerated.run_exact(Body(llama), chat, [FLIPS])
    assert len(none) == 0 and set(suites.EXACT_COLUMNS) <= set(none)
    none = enumerated.run_paraphrases(Body(llama), chat, vocabulary, [FLIPS], SEARCH)
    assert len(none) == 0 and set(suites.PARAPHRASE_COLUMNS) <= set(none)

    def ask(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        return [["heads"] * draws for _ in prompts]

    for table in drawn.run_sampled(ask, [], answers=2, max_new_tokens=9, seed=0):
        assert len(table) == 0 and {"suite", "id", "valid"} <= set(table)
    table, _ = drawn.run_sampled(ask, [FLIPS], answers=2, max_new_tokens=9, seed=0)
    assert set(suites.SAMPLED_COLUMNS) <= set(table) and table["first_tv"].isna().all()


def test_run_paraphrases_is_the_open_law_of_each_prompt(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    items = [item for item in ITEMS if isinstance(item, Paraphrase)][::12]
    vocabulary = chat.tokenizer.get_vocab()
    body = Body(llama)
    table = enumerated.run_paraphrases(body, chat, vocabulary, [FLIPS, *items], SEARCH)
    assert table["id"].tolist() == [item.id for item in items]
    assert table["label"].tolist() == [item.spec.label for item in items]
    for item, (_, row) in zip(items, table.iterrows(), strict=True):
        found = open_law(
            body, chat.prompt_ids(item.prompt), number_tokens(vocabulary), chat.end_id,
            tolerance=0.5, max_nodes=40, nodes_per_pass=20,
        )  # fmt: skip
        for name, value in measures_of_open_law(found, Target.of(item.spec)).items():
            assert row[name] == pytest.approx(value, rel=1e-4, nan_ok=True)
        assert row["valid_mass"] > 0 and row["wording"] == item.wording


# ---------------------------------------------------------------------------------------------- probabilities


def test_probability() -> None:
    assert probability("1/6") == Fraction(1, 6)
    assert probability(0.1) == Fraction(1, 10)  # as written, not the nearest binary number
    assert probability("1/2 * 2/3 + 1/2 * 1/5") == Fraction(13, 30)
    assert probability("0.25*1/2+ 3/8") == Fraction(1, 2)
    for bad in ("half", "1/0", "", "1/2 +", True, None, [0.5], float("nan")):
        with pytest.raises(ValueError):
            probability(bad)
