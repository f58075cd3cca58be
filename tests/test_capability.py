"""The capability suite: right answers by another way, no question twice, and files that the harness can read."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval.tasks
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import CHATML
from lm_eval.api.instance import Instance
from lm_eval.tasks._index import Entry, TaskIndex
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from calibnb.benchmarks.capability import arithmetic, bundled, summaries
from calibnb.benchmarks.capability import harness as capability_harness
from calibnb.errors import UserError
from calibnb.models import chatformat, loading
from calibnb.trees.attention import Body
from calibnb.trees.sampling import sample


@pytest.fixture(scope="module", autouse=True)
def own_tasks_are_read_once() -> Iterator[None]:
    """The harness takes ten seconds to read the files of its own tasks, which stay as they are."""
    build, own = TaskIndex.build, Path(lm_eval.tasks.__path__[0])
    read = cache(lambda: build([own]))

    def made(paths: list[Path]) -> dict[str, Entry]:
        index: dict[str, Entry] = {}
        for path in paths:  # later ones win, as there
            index |= read() if path == own else build([path])
        return index

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskIndex, "build", staticmethod(made))
        yield


def answer_of(item: dict[str, Any]) -> str:
    answer = item["answer"]
    return item["choices"][answer] if "choices" in item else answer


@pytest.mark.parametrize("task", bundled.TASKS)
def test_two_hundred_different_questions(task: str) -> None:
    levels, choices, examples = (getattr(bundled.TASKS[task], key) for key in ("levels", "choices", "examples"))
    made = bundled.items(task, 200 + examples, 0)
    assert len({i["question"] for i in made}) == 200 + examples
    assert {i["level"] for i in made} == set(range(1, levels + 1))
    assert bundled.items(task, 200 + examples, 0) == made != bundled.items(task, 200 + examples, 1)
    assert bundled.items(task, 50, 0) == made[:50]
    for item in made:
        assert len(item.get("choices", [])) == choices
        if choices:
            assert len(set(item["choices"])) == choices and 0 <= item["answer"] < len(item["choices"])
            assert not any(c != c.strip() or not c for c in item["choices"])
    if choices:  # no place is favoured
        places = [i["answer"] for i in made]
        assert max(places.count(k) for k in set(places)) < 0.65 * len(made)


@pytest.mark.parametrize("task", ["arithmetic", "written_arithmetic"])
def test_sums_are_right(task: str) -> None:
    for item in bundled.items(task, 200, 0):
        a, sign, b = re.search(r"is (\d+) ([-+×]) (\d+)\?", item["question"]).groups()
        assert answer_of(item) == str(eval(f"{a}{sign.replace('×', '*')}{b}"))
        digits = max(1, item["level"] - 1) if task == "arithmetic" else item["level"]
        assert len(a) == digits or sign == "-"


def test_word_problems_are_worked_out_right() -> None:
    calculated = {
        1: lambda a, b: a - b,
        2: lambda a, b, c: a * b + c,
        3: lambda paid, a, b, c, d: paid - a * b - c * d,
    }
    for item in bundled.items("word_problems", 200, 0):
        asked = [int(n) for n in re.findall(r"\d+", item["question"].partition(" Work it out")[0])]
        worked, _, result = item["answer"].partition("\n#### ")
        assert int(result) == calculated[item["level"]](*asked) >= 0
        for step in worked.removesuffix(".").split(". "):
            left, right = step.replace("×", "*").split(" = ")
            assert eval(left) == int(right)
        assert len(worked.split(". ")) == (1, 2, 4)[item["level"] - 1]


@pytest.mark.parametrize(
    ("answer", "target", "score", "lenient"),
    [
        ("12", "12", 1.0, 1.0),
        ("It is 12.", "12", 0.0, 1.0),
        ("3 × 4 = 12", "3 × 4 = 12.\n#### 12", 0.0, 1.0),
        ("#### 12 of 13", "#### 12", 1.0, 1.0),  # strictly right stays right
        ("12 or 13", "12", 0.0, 0.0),
        ("1,200 coins", "#### 1200", 0.0, 1.0),
        ("-5", "5", 0.0, 0.0),
        ("12.0", "12", 0.0, 1.0),
        ("none", "12", 0.0, 0.0),
        ("", "12", 0.0, 0.0),
    ],
)
def test_sums_are_read_strictly_and_leniently(answer: str, target: str, score: float, lenient: float) -> None:
    assert arithmetic.read(answer, target, score) == {"strict": score, "lenient": lenient}


@pytest.mark.parametrize("worked", [True, False])
def test_a_written_sum_counts_as_asked_for_or_by_its_last_number_and_a_cut_one_is_known(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, worked: bool,
) -> None:  # fmt: skip
    """What a model writes is set by hand; the rest is the harness's."""
    bundled.write_suite(tmp_path, 4, 0)
    chat, task = chatformat.chat_format(digit_tokenizer), "word_problems" if worked else "written_arithmetic"
    items = [json.loads(line) for line in (tmp_path / f"{task}.test.jsonl").read_text().splitlines()]
    right = [item["answer"].rpartition("#### ")[2] for item in items]
    mark = "#### " if worked else ""
    texts = [f"{mark}{right[0]}", f"so {right[1]}", f"{mark}{int(right[2]) + 1}", "1 2 3 "]
    ids = [[*chat.tokenizer(text, add_special_tokens=False)["input_ids"], chat.end_id] for text in texts]
    ids[3] = ids[3][:-1]  # never ends
    prompts = [conversation(chat, tmp_path, task, item["question"]) for item in items]

    def shared_end(one: list[int], other: list[int]) -> int:
        pairs = zip(reversed(one), reversed(other), strict=False)
        return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))

    def generate(input_ids: torch.Tensor, max_length: int, **how: Any) -> torch.Tensor:
        rows = []
        for row in input_ids.tolist():
            own = ids[max(range(len(prompts)), key=lambda i: shared_end(row, prompts[i]))]  # cut from the left
            room = max_length - len(row)
            full = (own * room)[:room] if own is ids[3] else [*own, *[chat.end_id] * (room - len(own))]
            rows.append([*row, *full])
        return torch.tensor(rows)

    model = copy.deepcopy(llama)
    monkeypatch.setattr(model, "generate", generate)
    frame, written, _ = ask(Body(model), chat, tmp_path, [f"calibnb_{task}"])
    assert written["strict"].tolist() == frame["score"].tolist() == [1, 0, 0, 0]
    assert written["lenient"].tolist() == [1, 1, 0, float(float(right[3]) == 3)]
    assert written["cut"].tolist() == [0, 0, 0, 1]
    assert written["level"].tolist() == frame["level"].tolist()
    assert written["task"].unique().tolist() == [task]


def test_other_tasks_write_no_sums(measured: tuple[Any, Any, Any]) -> None:
    frame, written, _ = measured
    assert set(frame["task"]) - set(written["task"]) >= {"copying", "arithmetic", "facts"}
    assert written.groupby("task").size().to_dict() == {"word_problems": 6, "written_arithmetic": 6}


def test_what_arithmetic_loses_beside_other_tasks() -> None:
    tasks = ["arithmetic"] * 3 + ["word_problems"] * 2 + ["facts"] * 4
    frame = pd.DataFrame({"task": tasks, "item": [0, 1, 2, 0, 1, 0, 1, 2, 3], "score": [0, 0, 1, 0, 1, 1, 1, 0, 1]})
    base = frame.assign(score=[1, 1, 1, 1, 0, 1, 1, 1, 0])
    found = summaries.arithmetic_beside_rest(frame, base, resamples=4000, seed=0).iloc[0]
    expected = (-2 / 3 + 0.0) / 2 - 0.0
    assert found["value"] == pytest.approx(expected)
    # The spread of a mean over draws with replacement, task by task.
    change = frame["score"] - base["score"]
    spread = [change[frame["task"] == task].var(ddof=0) / tasks.count(task) for task in dict.fromkeys(tasks)]
    deviation = ((spread[0] + spread[1]) / 4 + spread[2]) ** 0.5
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    alone = frame[frame["task"] == "facts"], base[base["task"] == "facts"]
    assert summaries.arithmetic_beside_rest(*alone, resamples=10, seed=0).empty


def test_sorted_compared_and_copied_right() -> None:
    for item in bundled.items("sorting", 200, 0):
        asked = [int(n) for n in re.findall(r"\d+", item["question"])]
        shown = [[int(n) for n in c.split(", ")] for c in item["choices"]]
        assert shown[item["answer"]] == sorted(asked) and all(sorted(s) == sorted(asked) for s in shown)
    for item in bundled.items("comparison", 200, 0):
        among = re.search(r": (.*)\?", item["question"]).group(1).split(", ")
        assert sorted(set(among)) == sorted(item["choices"])
        if item["level"] == 3:
            assert answer_of(item) == max(among, key=int)
        else:
            assert among.count(answer_of(item)) == 2 and len(among) == 4
    for item in bundled.items("copying", 200, 0):
        assert item["question"].endswith(": " + item["answer"]) and len(item["answer"].split()) == 2 * item["level"]


def test_a_fact_has_one_right_answer() -> None:
    for item in bundled.items("facts", 200, 0):
        kind = list(bundled._table().values())[item["level"] - 1]
        right = [a for q, a in kind["answers"].items() if item["question"].startswith(kind["question"].format(q))]
        assert right == [answer_of(item)] and item["choices"].count(right[0]) == 1


def test_too_many_items_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^benchmarks.capability.items: facts has 20\d items, got 500$"):
        bundled.items("facts", 502, 0)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    bundled.write_suite(folder, 6, 3)
    return folder


def test_examples_are_not_asked(suite: Path) -> None:
    for task in bundled.TASKS:
        shown, asked = (
            [json.loads(line)["question"] for line in (suite / f"{task}.{split}.jsonl").read_text().splitlines()]
            for split in ("fewshot", "test")
        )
        assert (len(shown), len(asked)) == (bundled.TASKS[task].examples, 6) and not set(shown) & set(asked)


# ------------------------------------------------------------------------------------------------------------- the run
def ask(
    body: Body, chat: chatformat.ChatFormat, suite: Path, tasks: str | list[str], **more: Any
) -> tuple[Any, Any, Any]:
    how: dict[str, Any] = {"data": None, "limit": None, "batch": 3, "seed": 0} | more
    return capability_harness.run(body, chat, tasks, suite=suite, **how)


@pytest.fixture(scope="module")
def measured(llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path) -> tuple[Any, Any, Any]:
    return ask(Body(llama), chatformat.chat_format(digit_tokenizer), suite, "bundled")


def conversation(chat: chatformat.ChatFormat, suite: Path, task: str, question: str) -> list[int]:
    """The prompt of a question behind the task's two examples, a turn each, rendered by hand."""
    examples = [json.loads(line) for line in (suite / f"{task}.fewshot.jsonl").read_text().splitlines()]
    text = ""
    for example in examples:
        text += f"<|im_start|>user\n{example['question']}<|im_end|>\n"
        text += f"<|im_start|>assistant\n{answer_of(example)}<|im_end|>\n"
    text += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ids: list[int] = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_choices_are_scored_like_our_own_exact_law(
    measured: tuple[Any, Any, Any], llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path
) -> None:
    frame, _, _ = measured
    chat, right = chatformat.chat_format(digit_tokenizer), 0
    for task in (name for name, task in bundled.TASKS.items() if task.choices):
        for row, line in enumerate((suite / f"{task}.test.jsonl").read_text().splitlines()):
            item = json.loads(line)
            prompt = conversation(chat, suite, task, item["question"])
            logp = []
            for choice in item["choices"]:
                ids = chat.answer_ids([choice])[0]
                with torch.no_grad():
                    out = torch.log_softmax(llama(torch.tensor([[*prompt, *ids]])).logits[0].double(), -1)
                logp.append(sum(float(out[len(prompt) - 1 + i, t]) for i, t in enumerate(ids)))
            expected = float(int(np.argmax(logp)) == item["answer"])
            found = frame[(frame["task"] == task) & (frame["item"] == row)].iloc[0]
            assert (found["score"], found["level"]) == (expected, item["level"])
            right += expected
    assert right > 0  # an oracle that is never right shows little


def test_choices_scored_together_are_what_the_harness_has_one_by_one(
    any_model: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    harness = capability_harness.Harness(Body(any_model), chatformat.chat_format(digit_tokenizer), batch=3)
    rng = np.random.default_rng(0)
    start = rng.integers(4, 99, 9).tolist()  # what some contexts share
    requests = []
    for i in range(7):
        context = [*(start if i % 3 else []), *rng.integers(4, 99, rng.integers(1, 12)).tolist()]
        best = int(any_model(torch.tensor([context])).logits[0, -1].argmax())  # a greedy continuation among them
        for text in ([best], [best, 7], [7, 8, 9], [7, 8], [7]):
            requests.append((("", ""), context, text))
    found = harness._loglikelihood_tokens(requests, disable_tqdm=True)
    expected = super(capability_harness.Harness, harness)._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert any(greedy for _, greedy in found)
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in expected], atol=2e-4)


def test_written_answers_are_greedy_and_exact(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A question whose right answer is what the model writes counts, the same with another answer does not."""
    bundled.write_suite(tmp_path, 4, 0)
    chat, task = chatformat.chat_format(digit_tokenizer), "copying"
    items = [json.loads(line) for line in (tmp_path / f"{task}.test.jsonl").read_text().splitlines()]
    for i, item in enumerate(items):
        ids = conversation(chat, tmp_path, task, item["question"])
        written: list[int] = []
        for _ in range(32):
            with torch.no_grad():
                token = int(llama(torch.tensor([[*ids, *written]])).logits[0, -1].argmax())
            if token == chat.end_id:
                break
            written.append(token)
        item["answer"] = chat.decode(written).split("\n")[0].strip() + ("" if i % 2 == 0 else "x")
    (tmp_path / f"{task}.test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    frame, _, _ = ask(Body(llama), chat, tmp_path, [f"calibnb_{task}"])
    assert frame["score"].tolist() == [1, 0, 1, 0]


# A value of each key of a generation config that changes what is written, or cannot be.
SETTINGS: dict[str, Any] = {
    "max_length": 3, "max_new_tokens": 1, "min_length": 400, "min_new_tokens": 30, "early_stopping": "never",
    "max_time": 1e-9, "stop_strings": ["e", "a"], "do_sample": True, "num_beams": 3, "use_mtp": True,
    "use_cache": False, "cache_implementation": "static", "cache_config": {"backend": "quanto"}, "max_cache_len": 2,
    "temperature": 9.5,
    "top_k": 1, "top_p": 0.01, "min_p": 0.9, "typical_p": 0.1, "epsilon_cutoff": 0.9, "eta_cutoff": 0.9,
    "repetition_penalty": 1.9, "encoder_repetition_penalty": 1.9, "length_penalty": -3.0, "no_repeat_ngram_size": 1,
    "bad_words_ids": [[i] for i in range(4, 50)], "forced_bos_token_id": 7, "forced_eos_token_id": 7,
    "exponential_decay_length_penalty": [0, 9.0], "suppress_tokens": list(range(4, 50)), "force_words_ids": [[7]],
    "begin_suppress_tokens": list(range(4, 50)), "sequence_bias": [[[7], 50.0]], "token_healing": True,
    "guidance_scale": 3.0, "watermarking_config": {"bias": 9.0}, "num_return_sequences": 2, "output_attentions": True,
    "output_hidden_states": True, "return_dict_in_generate": True, "return_dict": False,
    "eos_token_id": list(range(4, 50)), "pad_token_id": 9, "assistant_early_exit": 1,
    "prompt_lookup_num_tokens": 3, "compile_config": {"mode": "none"},
    "constraints": [1], "dola_layers": "high", "penalty_alpha": 0.9, "num_beam_groups": 3, "prefill_chunk_size": 2,
    "transformers_version": "0", "continuous_batching_config": {"block_size": 1}, "num_assistant_tokens_schedule": "x",
}  # fmt: skip
NAMES = sorted({*GenerationConfig().to_dict(), *SETTINGS})


def written_and_scored(folder: Path) -> list[Any]:
    """What a model from a folder writes for the harness, draws, and scores of two continuations."""
    model, tokenizer = loading.load(folder)
    chat, body = chatformat.chat_format(tokenizer), Body(model)
    asked = {"until": ["\n"], "do_sample": False, "max_gen_toks": 12}
    requests = [Instance("generate_until", {}, (chat.prompt_text(q), asked), 0) for q in ("one", "three?")]
    harness = capability_harness.Harness(body, chat, batch=2)
    ids = [chat.prompt_ids("one")]
    drawn = list(sample(body, chat, ids, draws=3, max_new_tokens=4, batch=3, seed=1))
    scored = harness._loglikelihood_tokens([(("", ""), ids[0], text) for text in ([7], [8, 9])], disable_tqdm=True)
    return [harness.generate_until(requests, disable_tqdm=True), drawn, scored]


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("model")
    llama.save_pretrained(folder)
    digit_tokenizer.save_pretrained(folder)
    return folder, written_and_scored(folder)


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("name", NAMES)
def test_no_generation_setting_of_a_folder_changes_a_measurement(
    plain: tuple[Path, list[Any]], tmp_path: Path, name: str, file: str
) -> None:
    folder, expected = plain
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    held = json.loads((folder / file).read_text())
    (tmp_path / file).write_text(json.dumps(held | {name: SETTINGS.get(name, 3)}))
    assert written_and_scored(tmp_path) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"temperature": -1}', '{"watermarking_config": 5}'])
def test_a_broken_generation_config_is_not_read(plain: tuple[Path, list[Any]], tmp_path: Path, text: str) -> None:
    folder, expected = plain
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text(text)
    assert written_and_scored(tmp_path) == expected


def test_a_model_that_was_not_loaded_here_writes_the_same(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat, written = chatformat.chat_format(digit_tokenizer), []
    for settings in ({}, {"repetition_penalty": 1.9, "no_repeat_ngram_size": 1, "max_new_tokens": 1}):
        model = copy.deepcopy(llama)
        model.generation_config = GenerationConfig(**settings)
        asked = (chat.prompt_text("one"), {"until": ["\n"], "do_sample": False, "max_gen_toks": 12})
        harness = capability_harness.Harness(Body(model), chat, batch=1)
        written.append(harness.generate_until([Instance("generate_until", {}, asked, 0)], disable_tqdm=True))
    assert written[0] == written[1] and len(written[0][0]) > 4


def test_the_head_is_given_no_view_with_gaps(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path
) -> None:
    """torch would copy the head for each row of one, if its weights need no gradient."""
    model, seen = copy.deepcopy(llama).requires_grad_(False), []
    model.get_output_embeddings().register_forward_hook(lambda head, inputs, out: seen.append(inputs[0]))
    ask(Body(model), chatformat.chat_format(digit_tokenizer), suite, ["calibnb_copying"])
    assert seen and all(x.is_contiguous() for x in seen)


def test_what_identifies_a_measurement(measured: tuple[Any, Any, Any], suite: Path) -> None:
    frame, _, about = measured
    assert list(frame["task"].unique()) == list(about["tasks"]) == list(bundled.TASKS)
    assert (frame.groupby("task").size() == 6).all()
    assert all(about["tasks"][name]["examples"] == task.examples for name, task in bundled.TASKS.items())
    assert all(re.fullmatch("[0-9a-f]{64}", task["hash"]) for task in about["tasks"].values())
    assert about["harness"] == importlib.metadata.version("lm_eval")


def test_the_hash_follows_the_questions_not_the_folder(
    measured: tuple[Any, Any, Any], llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    chat = chatformat.chat_format(digit_tokenizer)
    for seed, same in ((3, True), (4, False)):
        bundled.write_suite(tmp_path / str(seed), 6, seed)
        _, _, about = ask(Body(llama), chat, tmp_path / str(seed), ["calibnb_comparison"])
        assert (about["tasks"]["comparison"] == measured[2]["tasks"]["comparison"]) == same


def tiny_data(folder: Path) -> None:
    """tinyWinogrande as the hub lays it out, with four questions."""
    folder.mkdir(parents=True)
    rows = [
        {"sentence": f"Ann met Bo and _ left at {i}.", "option1": "Ann", "option2": "Bo", "answer": "12"[i % 2]}
        for i in range(4)
    ]
    for split in ("train", "validation"):
        text = "".join(json.dumps(row) + "\n" for row in (rows * 2 if split == "train" else rows))
        (folder / f"{split}.jsonl").write_text(text)
    files = "".join(f"  - split: {s}\n    path: {s}.jsonl\n" for s in ("train", "validation"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: winogrande_xl\n  data_files:\n{files}---\n")


def test_a_tiny_benchmark_from_a_folder(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path, tmp_path: Path
) -> None:
    tiny_data(tmp_path / "tinyWinogrande")
    chat = chatformat.chat_format(digit_tokenizer)
    frame, _, about = ask(Body(llama), chat, suite, ["tinyWinogrande", "calibnb_comparison"], data=tmp_path, limit=3)
    assert frame.groupby("task", sort=False).size().to_dict() == {"tinyWinogrande": 3, "comparison": 3}
    assert about["tasks"]["tinyWinogrande"]["examples"] == 5
    with pytest.raises(
        UserError, match=r"^benchmarks.capability.data: no folder .*tinyMMLU; allowed: null, or a folder with"
    ):
        ask(Body(llama), chat, suite, ["tinyMMLU"], data=tmp_path)
    with pytest.raises(
        UserError, match=r"^benchmarks.capability.data: no folder .*tinyAI2_arc; allowed: null, or a folder with"
    ):
        ask(Body(llama), chat, suite, ["tinyBenchmarks"], data=tmp_path)  # the group by its own name


@pytest.mark.parametrize("task", list(capability_harness.TINY))
def test_every_tiny_task_of_the_harness_is_understood(task: str) -> None:
    config = capability_harness.tiny_task(task, None)
    assert config["task"] == f"calibnb_{task}" and config["dataset_path"].startswith("tinyBenchmarks/tiny")
    assert {metric["aggregation"] for metric in config["metric_list"]} == {"mean"}


def test_an_unknown_task_is_one_line(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path
) -> None:
    with pytest.raises(
        UserError, match=r"^benchmarks.capability.tasks: unknown task 'tinyMLU'; allowed: bundled, and what `lm_"
    ):
        ask(Body(llama), chatformat.chat_format(digit_tokenizer), suite, ["tinyMLU"])


@pytest.mark.parametrize(
    ("metrics", "kind"), [(["bits_per_byte"], "loglikelihood_rolling"), (["brier_score"], "multiple_choice")]
)
def test_a_task_without_scores_of_its_questions_is_one_line(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path, tmp_path: Path, metrics: list[str],
    kind: str,
) -> None:  # fmt: skip
    config = yaml.safe_load((suite / "facts.yaml").read_text())
    config |= {"task": "calibnb_other", "output_type": kind, "metric_list": [{"metric": m} for m in metrics]}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(
        UserError, match=r"^benchmarks.capability.tasks: calibnb_other gives its questions no scores .*; allowed: "
    ):
        ask(Body(llama), chatformat.chat_format(digit_tokenizer), tmp_path, ["calibnb_other"])


CODE = {
    "plainly": "import absent_package.part",
    "with a text of its own": "try:\n    import absent_package\nexcept ImportError as e:\n    "
    "raise ImportError('Get\\nit') from e",
    "hidden": "try:\n    import absent_package\nexcept ImportError:\n    raise ModuleNotFoundError('Get it') from None",
    "a part": "from json import absent_package",
}


@pytest.mark.parametrize("how", CODE)
def test_a_task_whose_code_needs_a_package_is_one_line_before_any_question(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path, tmp_path: Path, how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(capability_harness, "Harness", None)  # nothing is asked
    config = yaml.safe_load((suite / "facts.yaml").read_text()) | {"task": "calibnb_other"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config) + "process_docs: !function needy.process\n")
    (tmp_path / "needy.py").write_text(CODE[how] + "\ndef process(docs): return docs\n")
    shutil.copyfile(suite / "facts.yaml", tmp_path / "facts.yaml")
    named = r"the package \w+, which" if how == "a part" else "the package absent_package, which"
    with pytest.raises(
        UserError, match=rf"^benchmarks.capability.tasks: calibnb_other needs {named} cannot be imported \(.*\); ins"
    ):
        ask(Body(llama), chatformat.chat_format(digit_tokenizer), tmp_path, ["calibnb_facts", "calibnb_other"])


def test_only_scores_that_are_averaged_count(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load((suite / "facts.yaml").read_text())
    config |= {"task": "calibnb_other", "metric_list": [{"metric": m} for m in ("acc", "brier_score")]}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    frame, _, _ = ask(Body(llama), chatformat.chat_format(digit_tokenizer), tmp_path, ["calibnb_other"])
    assert set(frame["task"]) == {"other"} and set(frame["score"]) <= {0.0, 1.0}


def test_data_out_of_reach_is_one_line(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"^benchmarks.capability.tasks: the data of tinyMMLU cannot be had \(\w+: "
    ) as error:
        ask(Body(llama), chatformat.chat_format(digit_tokenizer), suite, ["tinyMMLU"])
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------- summary
def scores(**tasks: list[float]) -> pd.DataFrame:
    rows = [(task, item, value) for task, values in tasks.items() for item, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["task", "item", "score"])


def test_summary_and_comparison_by_hand() -> None:
    own, base = scores(a=[1, 0, 1, 1], b=[0, 0]), scores(a=[1, 1, 1, 1], b=[1, 0])
    found = summaries.summarise(own, resamples=4000, seed=0).set_index("task")
    assert found["value"].to_dict() == {"a": 0.75, "b": 0.0, summaries.ALL: 0.375}
    assert found["items"].to_dict() == {"a": 4, "b": 2, summaries.ALL: 6}
    # The bootstrap's standard error of a share is sqrt(p (1 - p) / n).
    assert found.loc["a", "stderr"] == pytest.approx(np.sqrt(0.75 * 0.25 / 4), rel=0.05)
    assert found.loc[summaries.ALL, "stderr"] == pytest.approx(found.loc["a", "stderr"] / 2, rel=0.05)
    lost = summaries.compare(own, base, resamples=4000, seed=0).set_index("task")
    assert lost["value"].to_dict() == {"a": -0.25, "b": -0.5, summaries.ALL: -0.375}
    assert lost.loc[summaries.ALL, "low"] < -0.375 < lost.loc[summaries.ALL, "high"] <= 0
    same = summaries.compare(own, own, resamples=10, seed=0)
    assert (same[["value", "low", "high", "stderr"]] == 0).all(axis=None)
    with pytest.raises(ValueError, match="different items"):
        summaries.compare(own, scores(a=[1, 1, 1, 1]), resamples=10, seed=0)


def test_seeds_are_averaged_before_items() -> None:
    twice = pd.concat([scores(a=[1, 0]), scores(a=[0, 0])])
    assert summaries.summarise(twice, resamples=10, seed=0)["value"].tolist() == [0.25, 0.25]


def test_guessing() -> None:
    assert bundled.chances() == {
        "arithmetic": 0.25, "written_arithmetic": 0, "facts": 0.25, "copying": 0, "sorting": 0.25, "comparison": 1 / 3,
        "formatting": 0, "word_problems": 0,
    }  # fmt: skip


def test_a_question_is_asked_as_everywhere_else(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    """With thinking switched off where a template knows the switch."""
    tokenizer = copy.deepcopy(digit_tokenizer)
    block = "<think>\n\n</think>\n\n"
    written = f"({block!r} if message['role'] == 'assistant' else '')"
    off = f"{{% if not (enable_thinking | default(true)) %}}{{{{ {block!r} }}}}{{% endif %}}"
    turns = CHATML.replace("message['role'] + '\n' +", f"message['role'] + '\n' + {written} +")
    tokenizer.chat_template = turns.replace("assistant\n' }}", "assistant\n' }}" + off)
    chat = chatformat.chat_format(tokenizer)
    harness = capability_harness.Harness(Body(llama), chat, batch=2)
    asked = harness.apply_chat_template([{"role": "user", "content": "one"}])
    assert asked == chat.prompt_text("one")
    assert asked.endswith(block)


def test_the_harness_gives_contents_as_the_template_reads_them(
    llama: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer = copy.deepcopy(digit_tokenizer)
    tokenizer.chat_template = CHATML.replace("message['content']", "message['content'][0]['text']")
    chat = chatformat.chat_format(tokenizer)
    harness = capability_harness.Harness(Body(llama), chat, batch=2)
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "12"}]
    assert harness.apply_chat_template(turns[:1]) == chat.prompt_text("one")
    assert harness.apply_chat_template(turns, False) == chat.prompt_text("one") + "12"
