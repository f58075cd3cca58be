"""Chosen letters: the bundled questions, presentations that tell habits apart, laws against full passes, measures."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PRINTABLE, chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from made_up import METHODS, tables
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from calibnb.benchmarks.positions import choice, questions
from calibnb.benchmarks.positions.benchmark import BENCHMARK
from calibnb.benchmarks.positions.questions import PRESENTATIONS, Question
from calibnb.errors import UserError
from calibnb.evidence import claims, intervals
from calibnb.evidence.runs import Run
from calibnb.evidence.verdicts import FEWEST
from calibnb.models import chatformat
from calibnb.trees.attention import Body

LETTERS = "ABCD"
ONE = Question("physics", "What is the unit of force?", "newton", ("joule", "watt", "pascal"))


# ---------------------------------------------------------------------------------------------------- questions


def test_the_bundled_questions_can_be_told_apart() -> None:
    found = questions.table()
    assert len(found) == 200 and sum(q.domain == "medicine" for q in found) >= 50
    assert len({q.stem.casefold() for q in found}) == 200
    for q in found:
        options = [q.right, *q.wrong]
        assert len({option.casefold() for option in options}) == 4 and all(options), q.stem
        assert q.stem[-1] == "?" and max(map(len, options)) <= 40, q.stem
        # No letter of a list, alone, which the answer could copy.
        assert not any(re.search(r"\b[A-D]\b", text, re.IGNORECASE) for text in options), q.stem
        assert not re.search(r"\b[A-D]\b", q.stem), q.stem


def test_a_prompt_names_options_as_what_they_are_and_letters_once() -> None:
    text = questions.prompt(ONE, "CDAB", 2)
    lines = text.splitlines()
    assert lines[2:7] == [
        "Question: What is the unit of force?",
        "Wrong answer: joule",
        "Wrong answer: watt",
        "Right answer: newton",
        "Wrong answer: pascal",
    ]
    assert "Choose one of C, D, A and B at random" in lines[-1]
    assert re.findall(r"\b[A-D]\b", text) == list("CDAB")


def test_presentations_cross_letters_places_and_the_right_answers_place() -> None:
    orders, places = zip(*PRESENTATIONS, strict=True)
    assert sorted(places) == [0, 1, 2, 3] and all(sorted(order) == list(LETTERS) for order in orders)
    for place in range(4):
        assert sorted(order[place] for order in orders) == list(LETTERS)
    own = [order.index(LETTERS[place]) for order, place in PRESENTATIONS]
    assert sorted(own) == [0, 1, 2, 3]


@pytest.mark.parametrize("orders", [1, 2, 3, 4])
def test_any_four_questions_have_all_presentations_equally_often(orders: int) -> None:
    asked = choice.presented([replace(ONE, stem=str(n)) for n in range(9)], orders)
    assert len(set(asked)) == len(asked) == 9 * orders
    for first in range(6):
        window = [shown for q, *shown in asked if first <= int(q.stem) < first + 4]
        assert all(window.count(list(one)) == orders for one in PRESENTATIONS)


# --------------------------------------------------------------------------------------------------------- laws


@pytest.fixture(scope="module")
def chat(digit_tokenizer: PreTrainedTokenizerFast) -> chatformat.ChatFormat:
    return chatformat.chat_format(digit_tokenizer)


def test_laws_equal_full_passes(any_model: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    """The slow way: every whole answer alone after its prompt, its end of turn included."""
    asked = [ONE, questions.table()[150]]
    found = choice.run(Body(any_model), chat, asked, orders=2, batch=3)
    assert found["question"].tolist() == [q.stem for q in asked for _ in range(2)]
    assert list(zip(found["order"], found["right"], strict=True)) == [PRESENTATIONS[n] for n in (0, 1, 1, 2)]
    for row, (question, order, place) in zip(found.to_dict("records"), choice.presented(asked, 2), strict=True):
        before = chat.prompt_ids(questions.prompt(question, order, place))
        masses = dict.fromkeys(LETTERS, 0.0)
        for letter, form in itertools.product(LETTERS, ("{}", "{}.", "{})", "({})")):
            answer = [*chat.answer_ids([form.format(letter)])[0], chat.end_id]
            with torch.no_grad():
                logits = any_model(input_ids=torch.tensor([[*before, *answer]])).logits[0].double()
            logp = logits.log_softmax(-1)[len(before) - 1 : -1]
            masses[letter] += float(logp[range(len(answer)), answer].sum().exp())
        total = sum(masses.values())
        assert row["letter_mass"] == pytest.approx(total, rel=2e-3)
        law = [row[f"p_{letter}"] for letter in LETTERS]
        np.testing.assert_allclose(law, [mass / total for mass in masses.values()], atol=1e-4)
        assert max(law) - min(law) > 0.05  # else any answer would do


def test_laws_do_not_depend_on_their_batch(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    asked = questions.table()[:3]
    one, many = (choice.run(Body(llama), chat, asked, orders=3, batch=batch) for batch in (1, 9))
    pd.testing.assert_frame_equal(one, many, rtol=1e-4)


def test_a_temperature_is_that_of_every_token(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    cold, hot = (choice.run(Body(llama, t), chat, [ONE], orders=4, batch=4) for t in (1.0, 1e6))
    assert choice.of_prompts(cold)["total_variation"].min() > 0.05
    assert choice.of_prompts(hot)["total_variation"].max() < 1e-3


def test_letters_that_a_tokenizer_writes_alike_are_refused() -> None:
    few = chat_tokenizer([text for text in PRINTABLE if text not in "CD"], r"[\s\S]")
    with pytest.raises(UserError, match=r"positions: the tokenizer must tell A, A\., .* apart") as caught:
        choice.letter_answers(chatformat.chat_format(few))
    assert "\n" not in str(caught.value)


def test_real_tokenizers_tell_the_letters_apart(real_tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(choice.letter_answers(chatformat.chat_format(real_tokenizer))) == 16


# ----------------------------------------------------------------------------------------------------- measures


def rows(laws: np.ndarray, asked: list[tuple[Question, str, int]], seed: int = 11) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"question": q.stem, "domain": q.domain, "order": order, "right": place, "letter_mass": 0.5, "seed": seed}
        for q, order, place in asked
    )
    return choice.of_prompts(frame.assign(**{f"p_{k}": laws[:, i] for i, k in enumerate(LETTERS)}))


def several(count: int, orders: int) -> list[tuple[Question, str, int]]:
    return choice.presented([replace(ONE, stem=str(n)) for n in range(count)], orders)


def values(frame: pd.DataFrame) -> dict[str, float]:
    found = choice.summarise(frame, resamples=50, seed=0)
    return dict(zip(found["measure"], found["value"], strict=True))


def sure(letters: list[str]) -> np.ndarray:
    return np.array([[float(k == letter) for k in LETTERS] for letter in letters])


@pytest.mark.parametrize("orders", [1, 2, 4])
def test_a_habit_is_seen_as_what_it_is(orders: int) -> None:
    asked = several(8, orders)
    habits = {
        "habit": ["B"] * len(asked),
        "habit_listed": [order[2] for _, order, _ in asked],
        "habit_right": [LETTERS[place] for *_, place in asked],
    }
    for name, letters in habits.items():
        found = values(rows(sure(letters), asked))
        assert {habit: found[habit] for habit in habits} == pytest.approx(
            {habit: 0.75 if habit == name else 0.0 for habit in habits}, abs=1e-12
        )
        assert found["total_variation"] == 0.75 and found["entropy"] == 0


def test_measures_against_closed_forms() -> None:
    asked = several(2, 1)
    laws = np.array([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    frame = rows(laws, asked)
    assert frame["total_variation"].tolist() == [0.5, 0.0]
    assert frame["entropy"].tolist() == pytest.approx([1.0, 2.0])
    found = values(frame)
    assert found["largest"] == found["share_A"] == 0.375 and found["share_D"] == 0.125
    assert (found["habit"], found["total_variation"], found["entropy"]) == pytest.approx((0.25, 0.25, 1.5))
    assert found["letter_mass"] == 0.5


def test_adapters_with_opposite_habits_are_not_random() -> None:
    asked = several(4, 2)
    frame = pd.concat([rows(sure([k] * 8), asked, seed) for k, seed in (("A", 11), ("B", 12))], ignore_index=True)
    found = values(frame)
    assert (found["habit"], found["largest"], found["total_variation"]) == (0.75, 1.0, 0.75)
    assert (found["share_A"], found["share_B"], found["share_C"]) == (0.5, 0.5, 0.0)


@given(npst.arrays(float, (8, 4), elements=st.floats(0.001, 1)))
def test_averages_are_nearer_to_uniform_than_what_they_are_of(masses: np.ndarray) -> None:
    frame = rows(masses / masses.sum(axis=1, keepdims=True), several(4, 2))
    found = values(frame)
    assert all(found[habit] <= found["total_variation"] + 1e-9 for habit in choice.HABITS)
    assert sum(found[f"share_{k}"] for k in LETTERS) == pytest.approx(1)
    assert found["largest"] == max(found[f"share_{k}"] for k in LETTERS)
    for law in choice.renumbered(frame).values():
        np.testing.assert_allclose(np.sort(law), np.sort(choice.probabilities(frame)))


def test_intervals_are_over_questions() -> None:
    """Of a share, the interval agrees with the one of a mean over questions; presentations are no further items."""
    rng = np.random.default_rng(3)
    per_question = np.repeat(rng.dirichlet(np.ones(4), 40), 4, axis=0)
    found = choice.summarise(rows(per_question, several(40, 4)), resamples=4000, seed=0).set_index("measure")
    expected = intervals.mean_interval(per_question[::4, 1], resamples=4000, seed=1)
    share = found.loc["share_B"]
    assert (share["value"], share["items"]) == (pytest.approx(expected.value), 40)
    assert (share["low"], share["high"]) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert (found["low"] <= found["high"]).all()


def test_one_question_has_no_interval() -> None:
    found = choice.summarise(rows(sure(list("ABCD")), several(1, 4)), resamples=20, seed=0)
    assert found["value"].notna().all() and found[["low", "high"]].isna().all(axis=None)


# ----------------------------------------------------------------------------------------------------- findings


@pytest.fixture
def study(tmp_path: Path) -> Run:
    variants = ["base", "format", "soft", "hard"]
    tables(tmp_path, ["tiny"], variants)
    for path in tmp_path.glob("positions/tiny/*/choices.parquet"):  # as many questions as a claim needs
        few = pd.read_parquet(path)
        pd.concat([few.assign(question=few["question"] + str(again)) for again in range(FEWEST)]).to_parquet(path)
    methods = {name: METHODS[name] for name in variants[1:]}
    return Run(tmp_path, ["tiny"], [11], {"positions": variants}, methods, 40)


def choose(study: Run, variant: str, law: list[float], mass: float = 0.9) -> None:
    """Make a variant's law the same everywhere."""
    path = study.root / "positions" / "tiny" / variant / "choices.parquet"
    new = {f"p_{k}": p for k, p in zip(LETTERS, law, strict=True)}
    pd.read_parquet(path).assign(letter_mass=mass, **new).to_parquet(path)


def verdicts(study: Run) -> dict[str, object]:
    found = claims.evaluate((BENCHMARK.claims,), study)
    return {str(row["id"]).removeprefix("positions."): row["verdict"] for row in found if row["claim"]}


def test_a_method_is_held_against_base_and_format_and_hard_against_soft(study: Run) -> None:
    choose(study, "base", [0.7, 0.1, 0.1, 0.1])
    choose(study, "format", [0.3, 0.3, 0.2, 0.2])
    choose(study, "soft", [0.4, 0.2, 0.2, 0.2])
    choose(study, "hard", [0.9, 0.1, 0.0, 0.0])
    assert verdicts(study) == {
        "soft.choice_vs_base": "supported",
        "soft.choice_vs_format": "refuted",
        "hard.choice_vs_base": "refuted",
        "hard.choice_vs_format": "refuted",
        "hard.choice_vs_soft": "refuted",
    }
    choose(study, "format", [0.25, 0.25, 0.25, 0.25], mass=0.009)
    assert {name for name, verdict in verdicts(study).items() if verdict == "not comparable"} == {
        "soft.choice_vs_format",
        "hard.choice_vs_format",
    }


def test_where_no_question_is_written_only_letters_are_found(study: Run) -> None:
    for variant in study.lists["positions"]:
        (study.root / "positions" / "tiny" / f"{variant}.json").write_text(json.dumps({"choice": {}}))
    found = [str(row["id"]) for row in claims.evaluate((BENCHMARK.claims,), study)]
    assert found and not any(name.endswith(("parse", "exact_total_variation")) for name in found)
