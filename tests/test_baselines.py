"""Inference-time baselines: a fitted temperature, answers behind a random string, answers from a stated law."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb.benchmarks.baselines import asking
from calibnb.benchmarks.baselines.params import Way
from calibnb.laws import specs
from calibnb.models import chatformat
from calibnb.pipeline import params
from calibnb.training import temperature_scaling
from calibnb.training.curriculum import make_examples
from calibnb.training.packing import batch
from calibnb.trees.attention import Body
from calibnb.trees.sampling import Journal, Sampler


@pytest.fixture(scope="module")
def examples(digit_tokenizer: PreTrainedTokenizerFast) -> list:
    study = params.load("params.yaml")
    settings = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    chosen = [s for s in settings if s.family in ("binomial", "geometric") and s.split == "train"][:6]
    method = study.finetune["hard"].model_copy(update={"draws_per_prompt": 4})
    chat = chatformat.chat_format(digit_tokenizer)
    return list(make_examples(chosen, method, study.prompt, chat, 1, "samples"))


def test_temperature_loss_equals_a_plain_forward_pass(llama: PreTrainedModel, examples: list) -> None:
    body = Body(llama)
    loss = temperature_scaling.temperature_loss(
        body, [batch(examples[:4], body.device), batch(examples[4:], body.device)]
    )
    for temperature in (1.0, 2.5):
        total = 0.0
        for example in examples:
            trie, entries = example.trie, example.loss
            for node, token, weight in zip(entries.node, entries.token, entries.weight, strict=True):
                path = []
                while node:
                    path.append(int(trie.token[node]))
                    node = trie.parent[node]
                with torch.no_grad():
                    logits = llama(torch.tensor([[*example.prompt, *path[::-1]]])).logits[0, -1].double()
                total -= weight * float((logits / temperature).log_softmax(-1)[token])
        assert loss(temperature) == pytest.approx(total / len(examples), rel=1e-4)
    assert body.temperature == 1


def test_the_fitted_temperature_is_the_lowest_on_a_fine_grid(llama: PreTrainedModel, examples: list) -> None:
    body = Body(llama)
    loss = temperature_scaling.temperature_loss(body, [batch(examples, body.device)])
    fitted = temperature_scaling.fit_temperature(loss)
    grid = np.geomspace(temperature_scaling.LOWEST, temperature_scaling.HIGHEST, 60)
    assert loss(fitted) <= min(map(loss, grid)) + 1e-4


def test_a_known_temperature_is_found() -> None:
    assert temperature_scaling.fit_temperature(lambda t: (1 / t - 1 / 3) ** 2) == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<random>k3f9</random><thinking>k is 11</thinking><answer> 4.2 </answer>", "4.2"),
        ("<ANSWER>heads</ANSWER> or <answer>tails</answer>", "heads"),
        ("<answer>\nParis\n</answer>", "Paris"),
        ("<answer>4.2", ""),
        (asking.SEED_OF_THOUGHT, ""),  # repeated, and nothing answered
        (asking.SEED_OF_THOUGHT + "\n<answer>heads</answer>", "heads"),
        ("4.2", ""),
        ("", ""),
    ],
)
def test_tagged_answers(text: str, answer: str) -> None:
    assert asking.tagged_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("heads | 0.5\ntails | 0.5", {"heads": 0.5, "tails": 0.5}),
        ("Here is a list:\n1. heads | 60%\n2) tails | 20 %", {"heads": 0.75, "tails": 0.25}),
        ("- 3.5: 0.1\n- -2: 0.3\n", {"3.5": 0.25, "-2": 0.75}),
        ("3.14 | 0.25\n0.5: 0.5\n-1.5 | 0.25", {"3.14": 0.25, "0.5": 0.5, "-1.5": 0.25}),
        ("| Answer | p |\n|---|---|\n| heads | 0.5 |\n| tails | 0.5 |\n| Total | 1.0 |", {"heads": 0.5, "tails": 0.5}),
        ("**Paris** | .5 |\nParis | 0.5\nRome | 0", {"Paris": 1.0}),
        ("a | 1.5\nb | -1\nc | many", {}),
        ("42", {}),
        ("", {}),
    ],
)
def test_verbalised_laws(text: str, law: dict[str, float]) -> None:
    names, p = asking.verbalised_law(text)
    assert dict(zip(names, p.tolist(), strict=True)) == pytest.approx(law)


def test_both_ask_in_their_own_way_and_draw_as_stated() -> None:
    seen: list[str] = []

    def ask(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        seen.extend(prompts)
        return [["a | 0.8\nb | 0.2 <answer>x</answer>\nb | 0.2"] * draws for _ in prompts]

    draws = 2000
    drawn = asking.verbalised(ask, seed=1)(["one", "two"], draws=draws, max_new_tokens=9)
    for answers in drawn:
        assert set(answers) == {"a", "b"}
        assert Counter(answers)["a"] / draws == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / draws))
    assert drawn[0] != drawn[1]
    assert drawn == asking.verbalised(ask, seed=1)(["one", "two"], draws=draws, max_new_tokens=9)
    assert asking.seed_of_thought(ask)(["three"], draws=2, max_new_tokens=9) == [["x", "x"]]
    assert [s.split("\n")[0] for s in seen] == ["one", "two", "one", "two", "three"]
    assert all(len(s.splitlines()) > 2 for s in seen)


@pytest.mark.parametrize("name", ["ssot", "verbalised"])
def test_an_instruction_stands_behind_the_question_or_is_the_system_text(name: str, tmp_path: Path) -> None:
    """The same model would see the same words, in another place."""
    seen: list[tuple[str | None, str, int]] = []

    class Told(Sampler):
        def __call__(self, prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
            seen.extend((self.system, prompt, max_new_tokens) for prompt in prompts)
            return [["a | 1\n<answer>a</answer>"] * draws for _ in prompts]

    nothing: Any = None
    sampler = Told(nothing, nothing, 1, 3, Journal(tmp_path / "journal", "x"))
    for way in (name, f"{name}-system"):
        assert asking.in_way(sampler, way)(["one?"], draws=2, max_new_tokens=9) == [["a", "a"]]
    instruction = asking.INSTRUCTIONS[name]
    assert seen == [(None, f"one?\n\n{instruction}", 9), (instruction, "one?", 9)]


def test_every_way_that_may_be_asked_for_has_an_instruction() -> None:
    assert {way.removesuffix(asking.SYSTEM) for way in get_args(Way)} == set(asking.INSTRUCTIONS)
