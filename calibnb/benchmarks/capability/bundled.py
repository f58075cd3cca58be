"""Capability: a suite of small tasks that tells what calibration costs, as task files of EleutherAI's lm-eval.

Eight tasks, generated with a seed and graded in difficulty so that a model of a hundred million parameters is neither
lost nor done: arithmetic by choice, in writing and in word problems that are worked out step by step, facts, copying,
sorting, comparison and following a format. No
question of theirs is one that a model is trained on. The harness's own tasks run by the same call, the five
tinyBenchmarks among them (Polo et al., 2024, arXiv 2402.14992), whose scores `irt` extends to the whole benchmarks.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from calibnb.errors import UserError

Floats = npt.NDArray[np.float64]
Item = dict[str, Any]
WORDS = (
    "apple", "basket", "candle", "desert", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle",
    "ladder", "mirror", "needle", "orange", "pepper", "quartz", "ribbon", "saddle", "tunnel", "velvet", "window",
    "yellow", "zipper", "anchor", "bridge", "castle", "dragon", "eleven", "finger", "guitar", "helmet", "insect",
    "jungle", "kitten", "lemon", "market", "number", "office", "pencil", "rabbit", "silver", "temple", "uncle",
    "valley", "winter",
)  # fmt: skip


def _choice(question: str, answer: str, wrong: Sequence[str], rng: random.Random) -> Item:
    choices = [answer, *wrong]
    rng.shuffle(choices)
    return {"question": question, "choices": choices, "answer": choices.index(answer)}


def _sum(digits: int, rng: random.Random) -> tuple[str, int]:
    """An addition, a subtraction without a negative result or, with one digit, a product."""
    low, high = (1, 9) if digits == 1 else (10 ** (digits - 1), 10**digits - 1)
    a, b = rng.randint(low, high), rng.randint(low, high)
    sign = rng.choice("+-×" if digits == 1 else "+-")
    if sign == "-":
        a, b = max(a, b), min(a, b)
    return f"{a} {sign} {b}", {"+": a + b, "-": a - b, "×": a * b}[sign]


def _arithmetic(level: int, rng: random.Random) -> Item:
    """One digit with wrong answers far off, then near ones, then two digits."""
    text, result = _sum(max(1, level - 1), rng)
    far = [w for w in range(100) if abs(w - result) > 9]
    near = [result + d for d in (-20, -11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20) if result + d >= 0]
    wrong = [str(w) for w in rng.sample(far if level == 1 else near, 3)]
    return _choice(f"What is {text}? Answer with the number alone.", str(result), wrong, rng)


def _written(level: int, rng: random.Random) -> Item:
    text, result = _sum(level, rng)
    return {"question": f"What is {text}? Answer with the number alone.", "answer": str(result)}


def _word_problem(level: int, rng: random.Random) -> Item:
    """One step, two, or three, worked out before the number that counts, which stands behind four hash signs."""
    name, thing = rng.choice(("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn")), rng.choice(WORDS[:30])
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    if level == 1:
        story = f"{name} has {a + 10} tickets for the {thing} and gives away {b}. How many tickets are left?"
        steps = [f"{a + 10} - {b} = {a + 10 - b}"]
    elif level == 2:
        story = f"{name} fills {a} boxes with {b} stones each and finds {c} more. How many stones are there?"
        steps = [f"{a} × {b} = {a * b}", f"{a * b} + {c} = {a * b + c}"]
    else:
        spent = a * b + c * d
        story = (
            f"{name} pays with 200 coins for {a} cards at {b} coins each and {c} maps at {d} coins each. "
            "How many coins come back?"
        )
        steps = [f"{a} × {b} = {a * b}", f"{c} × {d} = {c * d}", f"{a * b} + {c * d} = {spent}"]
        steps.append(f"200 - {spent} = {200 - spent}")
    worked = ". ".join(steps)
    result = worked.rpartition("= ")[2]
    question = f"{story} Work it out step by step and end with #### and the number."
    return {"question": question, "answer": f"{worked}.\n#### {result}"}


def _comparison(level: int, rng: random.Random) -> Item:
    """The word that comes twice, the number that does, the largest number."""
    if level == 3:
        numbers = rng.sample(range(10, 100), 3)
        largest, *others = map(str, sorted(numbers, reverse=True))
        shown = ", ".join(map(str, numbers))
        question = f"Which is the largest of these numbers: {shown}? Answer with the number alone."
        return _choice(question, largest, others, rng)
    kind, pool = ("word", WORDS) if level == 1 else ("number", [str(n) for n in range(10, 100)])
    twice, *others = rng.sample(pool, 3)
    among = [twice, twice, *others]
    rng.shuffle(among)
    question = f"Which {kind} comes twice: {', '.join(among)}? Answer with the {kind} alone."
    return _choice(question, twice, others, rng)


def _sorting(level: int, rng: random.Random) -> Item:
    numbers = rng.sample(range(1, 100), level + 2)
    right = sorted(numbers)
    wrong: list[list[int]] = []
    while len(wrong) < 3:
        other = list(right)
        i, j = rng.sample(range(len(right)), 2)
        other[i], other[j] = other[j], other[i]
        if other not in wrong:  # three numbers have just three swaps
            wrong.append(other)

    def shown(values: list[int]) -> str:
        return ", ".join(map(str, values))

    question = f"Sort from smallest to largest: {shown(numbers)}. Answer with the numbers alone."
    return _choice(question, shown(right), [shown(w) for w in wrong], rng)


def _copying(level: int, rng: random.Random) -> Item:
    pieces = [rng.choice(WORDS) if rng.random() < 0.5 else str(rng.randint(0, 99)) for _ in range(2 * level)]
    return {"question": f"Repeat exactly this and nothing else: {' '.join(pieces)}", "answer": " ".join(pieces)}


_FORMATS: list[Callable[[str, str], tuple[str, str]]] = [
    lambda a, b: (f"Write the word {a} in capital letters and nothing else.", a.upper()),
    lambda a, b: (f"Write the word {a} between square brackets and nothing else.", f"[{a}]"),
    lambda a, b: (f"Write the words {a} and {b} joined by a hyphen and nothing else.", f"{a}-{b}"),
    lambda a, b: (f"Write the word {a} three times, separated by commas, and nothing else.", f"{a}, {a}, {a}"),
    lambda a, b: (f"Write the word {a} with a capital first letter and nothing else.", a.capitalize()),
    lambda a, b: (f"Write the words {b} and {a} in alphabetical order, separated by a comma, and nothing else.",
                  ", ".join(sorted((a, b)))),
]  # fmt: skip


def _formatting(level: int, rng: random.Random) -> Item:
    question, answer = _FORMATS[level - 1](*rng.sample(WORDS, 2))
    return {"question": question, "answer": answer}


def _facts(level: int, rng: random.Random) -> Item:
    """The level is the kind of fact; wrong answers are right ones of the same kind."""
    kind = list(_table())[level - 1]
    asked, answer = rng.choice(list(_table()[kind]["answers"].items()))
    others = sorted(set(_table()[kind]["answers"].values()) - {answer})
    question = _table()[kind]["question"].format(asked) + " Answer with the name alone."
    return _choice(question, answer, rng.sample(others, 3), rng)


@functools.cache
def _table() -> dict[str, Any]:
    text = (importlib.resources.files("calibnb.benchmarks.capability") / "facts.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


LINE, WORKED = 32, 128  # tokens of the longest answer


class Task(NamedTuple):
    """How a task is made: an item of a level, the number of levels, and how many examples come before a question."""

    make: Callable[[int, random.Random], Item]
    levels: int
    choices: int  # 0 for written answers
    examples: int  # always the same ones
    worked: bool = False  # the answer is worked out; what counts is the number behind ####


TASKS = {
    "arithmetic": Task(_arithmetic, 3, 4, 2),
    "written_arithmetic": Task(_written, 3, 0, 2),
    "word_problems": Task(_word_problem, 3, 0, 3, worked=True),
    "facts": Task(_facts, 5, 4, 2),
    "copying": Task(_copying, 4, 0, 2),
    "sorting": Task(_sorting, 4, 4, 2),
    "comparison": Task(_comparison, 3, 3, 2),
    "formatting": Task(_formatting, 6, 0, 6),  # one of each kind, or nobody could know what is meant
}


def items(task: str, count: int, seed: int) -> list[Item]:
    """`count` different questions of a task, its levels in turn, a level that has no new ones left out.

    An item has ``question``, ``level`` (from 1) and ``answer``: the text, or the place of the right one in ``choices``.
    Equal seeds give equal items.
    """
    make, levels, examples = TASKS[task].make, TASKS[task].levels, TASKS[task].examples
    rng = random.Random(f"{task} {seed}")
    found: dict[str, Item] = {}
    left = list(range(1, levels + 1))
    while len(found) < count:
        if not left:
            raise UserError(
                f"benchmarks.capability.items: {task} has {len(found) - examples} items, got {count - examples}"
            )
        for level in list(left):
            fresh = (made for made in (make(level, rng) for _ in range(1000)) if made["question"] not in found)
            item = next(fresh, None)
            if item is None:
                left.remove(level)
            elif len(found) < count:
                found[item["question"]] = {**item, "level": level}
    return list(found.values())


def write_suite(folder: Path, count: int, seed: int) -> None:
    """The suite as the harness reads it: for each task a yaml file, `count` questions and the examples before them."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, how in TASKS.items():
        made = items(task, how.examples + count, seed)
        for split, rows in (("fewshot", made[: how.examples]), ("test", made[how.examples :])):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{task}.{split}.jsonl").write_text(text, encoding="utf-8")
        metric: dict[str, Any] = {"metric": "acc" if how.choices else "exact_match"}
        metric |= {"aggregation": "mean", "higher_is_better": True}
        if how.worked:
            metric["regexes_to_ignore"] = ["(?s).*#### "]  # of the right answer, of which the number alone counts
        config: dict[str, Any] = {
            "task": f"calibnb_{task}",
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {
                    split: str((folder / f"{task}.{split}.jsonl").resolve()) for split in ("fewshot", "test")
                },
                "cache_dir": str((folder / "cache").resolve()),
            },
            "test_split": "test",
            "fewshot_split": "fewshot",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": how.examples,
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "target_delimiter": "",  # the answer begins the assistant's turn
            "metric_list": [metric],
            "metadata": {"version": 1},
        }
        if how.choices:
            config |= {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
        else:
            config |= {
                "output_type": "generate_until",
                "generation_kwargs": {
                    "until": [] if how.worked else ["\n"],
                    "do_sample": False,
                    "max_gen_toks": WORKED if how.worked else LINE,
                },
                "filter_list": [
                    {
                        "name": "number" if how.worked else "line",
                        "filter": [
                            {"function": "regex", "regex_pattern": r"#### (-?\d+)" if how.worked else r"^\s*(.*?)\s*$"},
                            {"function": "take_first"},
                        ],
                    }
                ],
            }
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def chances() -> dict[str, float]:
    """What guessing scores on the bundled tasks: one over the number of choices, 0 where an answer is written."""
    return {name: 1 / task.choices if task.choices else 0.0 for name, task in TASKS.items()}
