"""The capability suite: right answers by another way, no question twice, and files that the harness can read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from calibnb.benchmarks import capability
from calibnb.errors import UserError


def answer_of(item: dict[str, Any]) -> str:
    answer = item["answer"]
    return item["choices"][answer] if "choices" in item else answer


@pytest.mark.parametrize("task", capability.TASKS)
def test_two_hundred_different_questions(task: str) -> None:
    _, levels, choice = capability.TASKS[task]
    made = capability.items(task, 202, 0)
    assert len({i["question"] for i in made}) == 202
    assert {i["level"] for i in made} == set(range(1, levels + 1))
    assert capability.items(task, 202, 0) == made != capability.items(task, 202, 1)
    assert capability.items(task, 50, 0) == made[:50]
    for item in made:
        assert ("choices" in item) == choice
        if choice:
            assert len(set(item["choices"])) == len(item["choices"]) and 0 <= item["answer"] < len(item["choices"])
            assert not any(c != c.strip() or not c for c in item["choices"])
    if choice:  # no place is favoured
        places = [i["answer"] for i in made]
        assert max(places.count(k) for k in set(places)) < 0.65 * len(made)


@pytest.mark.parametrize("task", ["arithmetic", "written_arithmetic"])
def test_sums_are_right(task: str) -> None:
    for item in capability.items(task, 200, 0):
        a, sign, b = re.search(r"is (\d+) ([-+×]) (\d+)\?", item["question"]).groups()
        assert answer_of(item) == str(eval(f"{a}{sign.replace('×', '*')}{b}"))
        assert len(a) == item["level"] or sign == "-"


def test_sorted_compared_and_copied_right() -> None:
    for item in capability.items("sorting", 200, 0):
        asked = [int(n) for n in re.findall(r"\d+", item["question"])]
        shown = [[int(n) for n in c.split(", ")] for c in item["choices"]]
        assert shown[item["answer"]] == sorted(asked) and all(sorted(s) == sorted(asked) for s in shown)
    for item in capability.items("comparison", 200, 0):
        pair = [int(n) for n in re.findall(r"\d+", item["question"])]
        assert int(answer_of(item)) == (max(pair) if "larger" in item["question"] else min(pair))
    for item in capability.items("copying", 200, 0):
        assert item["question"].endswith(": " + item["answer"]) and len(item["answer"].split()) == 2 * item["level"]


def test_a_fact_has_one_right_answer() -> None:
    for item in capability.items("facts", 200, 0):
        kind = list(capability._table().values())[item["level"] - 1]
        right = [a for q, a in kind["answers"].items() if item["question"].startswith(kind["question"].format(q))]
        assert right == [answer_of(item)] and item["choices"].count(right[0]) == 1


def test_too_many_items_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^capability.items: facts has 20\d items, got 500$"):
        capability.items("facts", 502, 0)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    capability.write_suite(folder, 6, 3)
    return folder


def test_examples_are_not_asked(suite: Path) -> None:
    for task in capability.TASKS:
        shown, asked = (
            [json.loads(line)["question"] for line in (suite / f"{task}.{split}.jsonl").read_text().splitlines()]
            for split in ("fewshot", "test")
        )
        assert (len(shown), len(asked)) == (capability.FEWSHOT, 6) and not set(shown) & set(asked)
