"""Sampling: the model's own distribution, the same answers whatever the batch, nothing leaking in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WINDOW, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb.models import chatformat, loading
from calibnb.trees.attention import Body
from calibnb.trees.sampling import Journal, Sampler, pick, sample, uniforms


@pytest.fixture(scope="module")
def chat(digit_tokenizer: PreTrainedTokenizerFast) -> chatformat.ChatFormat:
    return chatformat.chat_format(digit_tokenizer)


def answers(
    model: PreTrainedModel,
    chat: chatformat.ChatFormat,
    prompt: list[int],
    *,
    draws: int,
    steps: int,
    batch: int,
    seed: int,
) -> list[str]:
    """Answers to one prompt."""
    drawn = sample(Body(model), chat, [prompt], draws=draws, max_new_tokens=steps, batch=batch, seed=seed)
    return dict(drawn)[0]


def naive(
    model: PreTrainedModel, chat: chatformat.ChatFormat, prompt: list[int], *, draws: int, steps: int, seed: int
) -> list[str]:
    """Row by row, the whole text run again for each token: no cache, no batch."""
    numbers = uniforms(prompt, seed=seed, draws=draws, steps=steps)
    texts = []
    for draw in range(draws):
        ids = list(prompt)
        for step in range(steps):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1]
            token = int(pick(logits, torch.tensor([numbers[draw, step]]))[0])
            if token == chat.end_id:
                break
            ids.append(token)
        texts.append(chat.decode(ids[len(prompt) :]))
    return texts


def ending(model: PreTrainedModel, end_id: int) -> PreTrainedModel:
    """The model with its end token favoured, so that answers stop at different lengths."""
    bias = torch.zeros(model.config.vocab_size)
    bias[end_id] = 2.0
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
    with torch.no_grad():
        head.weight.copy_(model.get_output_embeddings().weight)
        head.bias.copy_(bias)
    model.set_output_embeddings(head)
    return model


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gemma3", "gpt_oss"])
def test_equals_naive_sampling_and_any_batch(architecture: str, chat: chatformat.ChatFormat) -> None:
    model = ending(tiny_model(architecture, len(chat.tokenizer)), chat.end_id)
    prompt = chat.prompt_ids("a number")
    assert len(prompt) > 2 * WINDOW
    expected = naive(model, chat, prompt, draws=12, steps=2 * WINDOW, seed=3)
    lengths = {len(text) for text in expected}
    assert len(lengths) > 3  # else rows never left the batch at different times
    for batch in (1, 5, 12, 100):
        assert answers(model, chat, prompt, draws=12, steps=2 * WINDOW, batch=batch, seed=3) == expected


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gemma3", "gpt_oss"])
@pytest.mark.parametrize("keys", [1, 8])
def test_prompts_together_equal_prompts_alone(
    architecture: str, keys: int, chat: chatformat.ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "calibnb.trees.sampling.KEYS_PER_PROMPT_TOKEN", keys
    )  # 1: two draws to a row, several rows a prompt
    body = Body(ending(tiny_model(architecture, len(chat.tokenizer)), chat.end_id))
    prompts = [chat.prompt_ids(text) for text in ("a number from one to nine", "x", "a word", "a wind", "")]
    assert len({len(p) for p in prompts}) == 4
    alone = [naive(body.model, chat, p, draws=5, steps=2 * WINDOW, seed=3) for p in prompts]
    for batch in (2, 12, 100):
        together = sample(body, chat, prompts, draws=5, max_new_tokens=2 * WINDOW, batch=batch, seed=3)
        assert [texts for _, texts in sorted(together)] == alone


def test_temperature_divides_the_logits(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    prompt, draws = chat.prompt_ids("x"), 500
    with torch.no_grad():
        logits = llama(torch.tensor([prompt])).logits[:, -1]
    numbers = torch.from_numpy(uniforms(prompt, seed=2, draws=draws, steps=1)[:, 0])
    for temperature in (1.0, 3.0):
        drawn = sample(Body(llama, temperature), chat, [prompt], draws=draws, max_new_tokens=1, batch=draws, seed=2)
        tokens = pick(logits / temperature, numbers).tolist()
        assert dict(drawn)[0] == ["" if t == chat.end_id else chat.decode([t]) for t in tokens]


def test_an_answer_that_has_not_ended_is_empty(
    llama: PreTrainedModel, chat: chatformat.ChatFormat, tmp_path: Path
) -> None:
    body, journal = Body(llama, 0.3), Journal(tmp_path / "answers", "llama")
    some = Sampler(body, chat, batch=20, seed=1, journal=journal)
    whole = dataclasses.replace(some, ended=True)
    for steps in (1, 4, 8):
        (short,), (longer,) = (some(["x"], draws=40, max_new_tokens=n) for n in (steps, steps + 1))
        ended = [a == b for a, b in zip(short, longer, strict=True)]  # nothing came in one step more
        expected = [text if done else "" for text, done in zip(short, ended, strict=True)]
        assert whole(["x"], draws=40, max_new_tokens=steps) == [expected]
    assert 0 < sum(ended) < 40


def test_a_killed_run_resumes(llama: PreTrainedModel, chat: chatformat.ChatFormat, tmp_path: Path) -> None:
    prompts = ["x", "a word", "a number"]

    def ask(name: str, prompts: list[str], about: str = "llama") -> list[list[str]]:
        nonlocal operations
        body = Body(llama)
        sampler = Sampler(body, chat, batch=4, seed=1, journal=Journal(tmp_path / name, about))
        answers = sampler(prompts, draws=4, max_new_tokens=3)
        operations = body.operations.count
        assert sampler(prompts, draws=4, max_new_tokens=3) == answers
        assert body.operations.count == operations  # what is known takes nothing
        return answers

    operations = 0

    whole, of_whole = ask("whole", prompts), operations
    assert len({str(w) for w in whole}) == 3
    assert ask("killed", prompts[1:]) == whole[1:]
    path = tmp_path / "killed"
    half = path.read_text().splitlines()[0] + '\n{"key": "half a li'
    path.write_text(half)
    kept = json.loads(half.splitlines()[0])
    path.write_text(half.replace(kept["answers"][0], "from the journal", 1) if kept["answers"][0] else half)
    assert sum("from the journal" in texts for texts in ask("killed", prompts)) == 1
    assert operations == of_whole
    assert len(path.read_text().splitlines()) == 3
    # Another model's journal is not read.
    assert ask("killed", prompts, about="other") == whole


def test_first_token_has_the_models_distribution(any_model: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    prompt = chat.prompt_ids("x")
    with torch.no_grad():
        q = any_model(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()
    draws = 4000
    texts = answers(any_model, chat, prompt, draws=draws, steps=1, batch=draws, seed=5)
    token = {chat.decode([i]): i for i in range(len(q))} | {"": chat.end_id}
    counts = np.bincount([token[text] for text in texts], minlength=len(q))
    order = np.argsort(q)  # cells pooled from the rarest up, until each expects five or more
    cells = np.minimum(np.floor(np.cumsum(q[order]) * draws / 5), 60).astype(int)
    expected = np.bincount(cells, weights=q[order] * draws)
    observed = np.bincount(cells, weights=counts[order])
    keep = expected > 0
    assert keep.sum() >= 8
    assert stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-3


def test_whole_answers_have_the_models_distribution(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    """Frequencies of two-token answers against exact products along the path, for the likeliest of them."""
    prompt = chat.prompt_ids("x")
    with torch.no_grad():
        first = llama(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
        heads = first.topk(4).indices
        rows = torch.tensor([[*prompt, int(head)] for head in heads])
        second = llama(input_ids=rows).logits[:, -1].double().softmax(-1)
    draws = 3000
    texts = answers(llama, chat, prompt, draws=draws, steps=2, batch=1000, seed=9)
    for head, row in zip(heads, second, strict=True):
        tail = int(row.argmax())
        if chat.end_id in (int(head), tail):
            continue
        p = float(first[head] * row[tail])
        count = texts.count(chat.decode([int(head), tail]))
        assert stats.binomtest(count, draws, p).pvalue > 1e-3


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    u=st.one_of(st.floats(0, 1, exclude_max=True), st.just(1 - 2**-53)),
)
def test_pick_is_the_inverse_distribution_function(logits: list[float], u: float) -> None:
    row = torch.tensor([logits, logits], dtype=torch.float32)
    uniform = torch.tensor([u, 0.0], dtype=torch.float64)
    token, lowest = pick(row, uniform).tolist()
    p = row[0].double().softmax(-1).numpy()
    cumulated = np.cumsum(p)
    assert p[token] > 0 and p[lowest] > 0 and lowest == np.flatnonzero(p)[0]
    below = cumulated[token - 1] if token else 0.0
    slack = 1e-6  # sums of blocks are float32
    assert below - slack <= u * cumulated[-1] <= cumulated[token] + slack
    assert pick(row[:1], uniform).tolist() == [token, lowest]


def test_pick_never_takes_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    assert pick(logits, torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [1]


def test_pick_keeps_the_tail() -> None:
    """Half the mass lies on 2,000 rare tokens; cumulated in bfloat16 all of it would be lost."""
    logits = torch.zeros(1, 2001)
    logits[0, 0] = float(np.log(2000))
    share = pick(logits, torch.linspace(0, 0.9999, 1000, dtype=torch.float64))
    assert 0.49 < float((share > 0).double().mean()) < 0.51


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), draws=st.integers(1, 6), more=st.integers(1, 6))
def test_uniforms_belong_to_their_draw(seed: int, draws: int, more: int) -> None:
    few = uniforms([1, 2, 3], seed=seed, draws=draws, steps=4)
    many = uniforms([1, 2, 3], seed=seed, draws=draws + more, steps=9)
    assert few.shape == (draws, 4)
    assert (many[:draws, :4] == few).all()
    assert len(np.unique(many)) == many.size
    assert not np.isin(uniforms([1, 2, 4], seed=seed, draws=draws, steps=4), few).any()
    assert not np.isin(uniforms([1, 2, 3], seed=seed + 1, draws=draws, steps=4), few).any()


def test_generation_config_does_not_leak(tiny_folder: Path, chat: chatformat.ChatFormat) -> None:
    prompt = chat.prompt_ids("x")

    def run() -> list[str]:
        model, _ = loading.load(tiny_folder)
        return answers(model, chat, prompt, draws=40, steps=4, batch=40, seed=1)

    plain = run()
    path = tiny_folder / "generation_config.json"
    config = json.loads(path.read_text()) | {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.5}
    path.write_text(json.dumps(config))
    assert len(set(plain)) > 10
    assert run() == plain


def test_special_tokens_stay_in_the_text(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    model = ending(tiny_model("llama", len(chat.tokenizer)), chat.tokenizer.eos_token_id)
    texts = answers(model, chat, chat.prompt_ids("x"), draws=60, steps=4, batch=60, seed=1)
    assert any("<|endoftext|>" in text for text in texts)
    assert not any("<|im_end|>" in text for text in texts)


def test_seed_and_prompt_change_the_answers(llama: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    def run(prompt: str, seed: int) -> str:
        texts = answers(llama, chat, chat.prompt_ids(prompt), draws=20, steps=3, batch=20, seed=seed)
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    assert run("x", 1) == run("x", 1)
    assert len({run("x", 1), run("x", 2), run("y", 1)}) == 3


def test_a_killed_run_keeps_whole_batches_of_one_prompt(
    llama: PreTrainedModel, chat: chatformat.ChatFormat, tmp_path: Path
) -> None:
    def ask(name: str, batch: int) -> list[str]:
        sampler = Sampler(Body(llama), chat, batch=batch, seed=1, journal=Journal(tmp_path / name, "llama"))
        return sampler(["x"], draws=10, max_new_tokens=3)[0]

    whole = ask("whole", 20)
    assert ask("parts", 4) == whole
    path = tmp_path / "parts"
    lines = path.read_text().splitlines()
    assert [len(json.loads(line)["answers"]) for line in lines] == [4, 4, 2]
    kept = json.loads(lines[0]) | {"answers": ["from the journal"] * 4}
    path.write_text(json.dumps(kept) + "\n" + lines[1] + "\n" + lines[2][:20])
    assert ask("parts", 4) == ["from the journal"] * 4 + whole[4:]
