"""Capability: a suite of small tasks that tells what calibration costs, as task files of EleutherAI's lm-eval.

Seven tasks, generated with a seed and graded in difficulty so that a model of a hundred million parameters is neither
lost nor done: arithmetic by choice and in writing, facts, copying, sorting, comparison and following a format. No
question of theirs is one that a model is trained on. The harness's own tasks run by the same call, the five
tinyBenchmarks among them (Polo et al., 2024, arXiv 2402.14992), whose scores :mod:`calibnb.irt` extends to the whole
benchmarks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import importlib.util
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import lm_eval.tasks
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from lm_eval.api.metrics import mean
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import hash_string
from tqdm.auto import tqdm
from transformers import GenerationConfig

from calibnb import hub
from calibnb.errors import UserError
from calibnb.models import ChatFormat
from calibnb.tree import Body, continuations

Floats = npt.NDArray[np.float64]

Item = dict[str, Any]
_Request = tuple[tuple[str, str], list[int], list[int]]  # texts, and the ids of context and continuation
WORDS = (
    "apple", "basket", "candle", "desert", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle",
    "ladder", "mirror", "needle", "orange", "pepper", "quartz", "ribbon", "saddle", "tunnel", "velvet", "window",
    "yellow", "zipper", "anchor", "bridge", "castle", "dragon", "eleven", "finger", "guitar", "helmet", "insect",
    "jungle", "kitten", "lemon", "market", "number", "office", "pencil", "rabbit", "silver", "temple", "uncle",
    "valley", "winter",
)  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- the suite
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
    text = (importlib.resources.files("calibnb") / "prompts" / "facts.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


class Task(NamedTuple):
    """How a task is made: an item of a level, the number of levels, and how many examples come before a question."""

    make: Callable[[int, random.Random], Item]
    levels: int
    choices: int  # 0 for written answers
    examples: int  # always the same ones


TASKS = {
    "arithmetic": Task(_arithmetic, 3, 4, 2),
    "written_arithmetic": Task(_written, 3, 0, 2),
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
    make, levels, _, examples = TASKS[task]
    rng = random.Random(f"{task} {seed}")
    found: dict[str, Item] = {}
    left = list(range(1, levels + 1))
    while len(found) < count:
        if not left:
            raise UserError(f"capability.items: {task} has {len(found) - examples} items, got {count - examples}")
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
    for task, (_, _, choices, examples) in TASKS.items():
        made = items(task, examples + count, seed)
        for split, rows in (("fewshot", made[:examples]), ("test", made[examples:])):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{task}.{split}.jsonl").write_text(text, encoding="utf-8")
        metric = {"metric": "acc" if choices else "exact_match", "aggregation": "mean", "higher_is_better": True}
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
            "num_fewshot": examples,
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "target_delimiter": "",  # the answer begins the assistant's turn
            "metric_list": [metric],
            "metadata": {"version": 1},
        }
        if choices:
            config |= {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
        else:
            config |= {
                "output_type": "generate_until",
                "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 32},
                "filter_list": [
                    {
                        "name": "line",
                        "filter": [
                            {"function": "regex", "regex_pattern": r"^\s*(.*?)\s*$"},
                            {"function": "take_first"},
                        ],
                    }
                ],
            }
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------- tinyBenchmarks
# task of the harness: scenario of the published item parameters
TINY = {
    "tinyArc": "arc",
    "tinyGSM8k": "gsm8k",
    "tinyHellaswag": "hellaswag",
    "tinyMMLU": "mmlu",
    "tinyTruthfulQA": "truthfulqa",
    "tinyWinogrande": "winogrande",
}


def tiny_task(name: str, data: Path | None) -> dict[str, Any]:
    """One of the harness's tinyBenchmarks tasks, its mean taken as it is, its data from a folder if one is given.

    As the harness has them these tasks need a package that is on no index, which estimates the whole benchmark's score;
    here :mod:`calibnb.irt` does that, from the scores of the items.

    data: a folder with the hub's data sets as subfolders (``tinyMMLU``, ...).
    """
    folder = Path(lm_eval.tasks.__path__[0]) / "tinyBenchmarks"

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        module, _, attribute = node.value.rpartition(".")
        if module == "agg_functions":
            return "mean"
        spec = importlib.util.spec_from_file_location(f"{__name__}.{module}", folder / f"{module}.py")
        assert spec is not None and spec.loader is not None
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        return getattr(code, attribute)

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", function)
    config: dict[str, Any] = {"include": "tinyTruthfulQA_mc2.yaml" if name == "tinyTruthfulQA" else f"{name}.yaml"}
    while "include" in config:
        below = (folder / config.pop("include")).read_text(encoding="utf-8")
        config = yaml.load(below, Loader) | config
    # Of several readings of an answer the first, the strictest, counts: a task is one score.
    if "filter_list" in config:
        config["filter_list"] = config["filter_list"][:1]
    # A name of our own: the harness would lay this over its own task of the same name, which cannot be loaded.
    config["task"] = f"calibnb_{name}"
    if data is not None:
        local = data / config["dataset_path"].split("/")[1]
        if not local.is_dir():
            raise UserError(f"capability.data: no folder {local}; allowed: null, or a folder with {local.name} in it")
        config["dataset_path"] = str(local)
    return config


# ------------------------------------------------------------------------------------------------------------- the run
class Harness(HFLM):  # type: ignore[misc]
    """The harness's model, asked in the chat format that everything else here uses.

    The choices of a question are scored together by tree attention, what questions begin with alike is encoded once:
    the harness encodes the whole prompt for each choice.
    """

    def __init__(self, body: Body, chat: ChatFormat, batch: int) -> None:
        # What ends a turn in the chat template need not be what the tokenizer calls the end of a text. All else that a
        # generation config can say, from penalties to limits, is the task's to say.
        body.model.generation_config = GenerationConfig(eos_token_id=chat.end_id)
        super().__init__(pretrained=body.model, tokenizer=chat.tokenizer, batch_size=batch)
        self.body, self.chat, self.together = body, chat, batch
        # generate() asks for the last position of a batch, a view with gaps. Where weights need no gradient, as after
        # merging an adapter, torch multiplies such a view row by row, with a copy of the whole head for each row.
        body.head.register_forward_pre_hook(lambda head, inputs: (inputs[0].contiguous(),))

    def _loglikelihood_tokens(
        self, requests: list[_Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if any(len(context) + len(text) > self.max_length for _, context, text in requests):
            # Cut from the left, with a warning, as the harness does it.
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)  # type: ignore[no-any-return]
        asked: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
        for place, (_, context, text) in enumerate(requests):
            asked.setdefault(tuple(context), {}).setdefault(tuple(text), []).append(place)
        found: list[tuple[float, bool]] = [(np.nan, False)] * len(requests)
        contexts = sorted(asked)  # neighbours begin alike
        for first in tqdm(range(0, len(contexts), self.together), desc="choices", unit="batch", disable=disable_tqdm):
            here = contexts[first : first + self.together]
            scores = continuations(self.body, here, [list(asked[key]) for key in here])
            for key, values in zip(here, scores, strict=True):
                for places, value in zip(asked[key].values(), values, strict=True):
                    for place in places:
                        found[place] = value
        return found

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        text = self.chat.render(
            chat_history, add_generation_prompt, continue_final_message=not add_generation_prompt
        )
        return text + self.chat.forced if add_generation_prompt else text


def _what_is_missing(error: ImportError) -> str:
    """What a task's code lacks and the remedy: code of the harness may hide the package's name in a text of its own."""
    chain: BaseException | None = error
    while chain is not None and not (isinstance(chain, ImportError) and chain.name):
        chain = chain.__cause__ or chain.__context__
    reason = " ".join(str(error).split())
    if isinstance(chain, ImportError) and chain.name:
        return f"needs the package {chain.name}, which cannot be imported ({reason}); install it"
    return f"needs a package that cannot be imported ({reason}); install it"


def run(
    body: Body,
    chat: ChatFormat,
    tasks: str | Sequence[str],
    *,
    suite: Path,
    data: Path | None,
    limit: int | None,
    batch: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Ask a model the questions of some tasks of the harness.

    Args:
        body: the model with its adapter, as it is measured everywhere else, at temperature 1.
        tasks: `bundled`, or names of tasks, of the harness or of the suite (``calibnb_...``).
        suite: the folder of :func:`write_suite`.
        data: see :func:`tiny_task`.
        limit: at most so many questions a task.
        seed: of the choice of examples, where a task chooses them at random.

    Returns:
        A row a question: ``task, item, level, score``, the score mostly 1 or 0. A task that the harness scores in
        several ways is several tasks here, named after filter and metric; what is no mean over the questions is left
        out. And what identifies the measurement: the
        harness's version, and version, hash and number of examples of each task.

    Raises:
        UserError: a task that neither the harness nor the suite knows, whose code needs a package that is not there,
            whose data cannot be had, or that has no scores of its questions, such as one of perplexity.
    """
    names = [f"calibnb_{task}" for task in TASKS] if tasks == "bundled" else list(tasks)
    # The harness's group asks for a package that is in no index: its tasks stand for it.
    names = list(dict.fromkeys(n for name in names for n in (TINY if name == "tinyBenchmarks" else [name])))
    # The harness takes ten seconds to read the files of all its own tasks.
    ours = {f"calibnb_{task}" for task in TASKS} | set(TINY)
    manager = TaskManager(include_path=str(suite), include_defaults=not set(names) <= ours)
    for name in names:
        if name not in ours and name not in manager.all_tasks:
            raise UserError(
                f"capability.tasks: unknown task {name!r}; allowed: bundled, and what `lm_eval ls tasks` lists"
            )
    here = {f"calibnb_{task}" for task in TASKS} | (set() if data is None else set(TINY))
    name = ""
    try:
        loaded: dict[str, Any] = {}
        with contextlib.nullcontext() if set(names) <= here else hub.asked():
            for name in names:
                loaded |= manager.load([tiny_task(name, data) if name in TINY else name])["tasks"]
        name = ", ".join(names)
        # Of what a task reports, that which is a mean over its questions.
        averaged = {task: [k for k, v in loaded[task].aggregation().items() if v is mean] for task in loaded}
        for task in loaded:
            if not averaged[task]:
                raise UserError(
                    f"capability.tasks: {task} gives its questions no scores whose mean is the task's; allowed: tasks "
                    "with one, such as acc or exact_match"
                )
        found = simple_evaluate(
            Harness(body, chat, batch),
            tasks=list(loaded.values()),
            limit=limit,
            task_manager=manager,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except ImportError as error:
        raise UserError(f"capability.tasks: {name} {_what_is_missing(error)}, or name other tasks") from error
    except (*hub.FAILURES, ConnectionError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"capability.tasks: the data of {', '.join(names)} cannot be had ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}); connect, or name a folder as capability.data"
        ) from error
    rows = []
    for task, samples in found["samples"].items():
        name = task.removeprefix("calibnb_")
        several_filters = len({sample["filter"] for sample in samples}) > 1
        metrics = [metric for metric in samples[0]["metrics"] if metric in averaged[task]]
        for sample in samples:
            for metric in metrics:
                parts = [name, *[sample["filter"]] * several_filters, *[metric] * (len(metrics) > 1)]
                level = sample["doc"]["level"] if name in TASKS else 0  # other tasks mean something else by it
                asked_for = {"task": ", ".join(parts), "item": sample["doc_id"], "level": level}
                rows.append(asked_for | {"score": float(sample[metric])})
    about = {
        "harness": found["lm_eval_version"],
        "tasks": {
            task.removeprefix("calibnb_"): {
                "version": found["versions"][task],
                "hash": hash_string("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)),
                "examples": found["n-shot"][task],
            }
            for task, samples in found["samples"].items()
        },
    }
    return pd.DataFrame(rows), about


# ------------------------------------------------------------------------------------------------------------- summary
ALL = "all tasks"


def _scores(frame: pd.DataFrame) -> dict[str, Floats]:
    """Scores ``[items]`` of each task, the mean over training seeds."""
    per_item = frame.groupby(["task", "item"], sort=False)["score"].mean().reset_index()
    return {str(task): part["score"].to_numpy(np.float64) for task, part in per_item.groupby("task", sort=False)}


def _estimates(scores: Mapping[str, Floats], resamples: int, seed: int) -> pd.DataFrame:
    """Means, their standard errors and intervals, from a bootstrap of the items within each task."""
    rng = np.random.default_rng(seed)
    drawn = [x[rng.integers(0, len(x), (resamples, len(x)))].mean(axis=1) for x in scores.values()]
    rows = []
    for task, value, means, count in [
        *((task, x.mean(), m, len(x)) for (task, x), m in zip(scores.items(), drawn, strict=True)),
        (ALL, np.mean([x.mean() for x in scores.values()]), np.mean(drawn, axis=0), sum(map(len, scores.values()))),
    ]:
        low, high = np.quantile(means, [0.025, 0.975])
        rows.append({"task": task, "value": value, "low": low, "high": high, "stderr": means.std(), "items": count})
    return pd.DataFrame(rows)


def summarise(frame: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Mean score of each task and of all tasks, which count alike.

    frame: of :func:`run`, any number of training seeds.

    Returns: rows ``task, value, low, high, stderr, items``; 95 % intervals from a bootstrap of the items.
    """
    return _estimates(_scores(frame), resamples, seed)


def compare(frame: pd.DataFrame, base: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """What `frame` scores more than `base`, item by item, as :func:`summarise`."""
    own, other = _scores(frame), _scores(base)
    if {task: len(x) for task, x in own.items()} != {task: len(x) for task, x in other.items()}:
        raise ValueError("the two hold different items")
    return _estimates({task: x - other[task] for task, x in own.items()}, resamples, seed)


def chances() -> dict[str, float]:
    """What guessing scores on the bundled tasks: one over the number of choices, 0 where an answer is written."""
    return {name: 1 / task.choices if task.choices else 0.0 for name, task in TASKS.items()}
