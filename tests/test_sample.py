"""Sampling: the model's own distribution, the same answers whatever the batch, nothing leaking in."""

from __future__ import annotations

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

from calibnb import models
from calibnb.sample import pick, sample, uniforms


@pytest.fixture(scope="module")
def chat(digit_tokenizer: PreTrainedTokenizerFast) -> models.ChatFormat:
    return models.chat_format(digit_tokenizer)


def naive(
    model: PreTrainedModel, chat: models.ChatFormat, prompt: list[int], *, draws: int, steps: int, seed: int
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
def test_equals_naive_sampling_and_any_batch(architecture: str, chat: models.ChatFormat) -> None:
    model = ending(tiny_model(architecture, len(chat.tokenizer)), chat.end_id)
    prompt = chat.prompt_ids("a number")
    assert len(prompt) > 2 * WINDOW
    expected = naive(model, chat, prompt, draws=12, steps=2 * WINDOW, seed=3)
    lengths = {len(text) for text in expected}
    assert len(lengths) > 3  # else rows never left the batch at different times
    for batch in (1, 5, 12, 100):
        got = sample(
            model,
            chat.tokenizer,
            prompt,
            chat.end_id,
            draws=12,
            max_new_tokens=2 * WINDOW,
            batch=batch,
            seed=3,
        )
        assert got == expected


def test_first_token_has_the_models_distribution(any_model: PreTrainedModel, chat: models.ChatFormat) -> None:
    prompt = chat.prompt_ids("x")
    with torch.no_grad():
        q = any_model(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()
    draws = 4000
    texts = sample(
        any_model, chat.tokenizer, prompt, chat.end_id, draws=draws, max_new_tokens=1, batch=draws, seed=5
    )
    token = {chat.decode([i]): i for i in range(len(q))} | {"": chat.end_id}
    counts = np.bincount([token[text] for text in texts], minlength=len(q))
    order = np.argsort(q)  # cells pooled from the rarest up, until each expects five or more
    cells = np.minimum(np.floor(np.cumsum(q[order]) * draws / 5), 60).astype(int)
    expected = np.bincount(cells, weights=q[order] * draws)
    observed = np.bincount(cells, weights=counts[order])
    keep = expected > 0
    assert keep.sum() >= 8
    assert stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-3


def test_whole_answers_have_the_models_distribution(llama: PreTrainedModel, chat: models.ChatFormat) -> None:
    """Frequencies of two-token answers against exact products along the path, for the likeliest of them."""
    prompt = chat.prompt_ids("x")
    with torch.no_grad():
        first = llama(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
        heads = first.topk(4).indices
        rows = torch.tensor([[*prompt, int(head)] for head in heads])
        second = llama(input_ids=rows).logits[:, -1].double().softmax(-1)
    draws = 3000
    texts = sample(
        llama, chat.tokenizer, prompt, chat.end_id, draws=draws, max_new_tokens=2, batch=1000, seed=9
    )
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
    p = row[0].softmax(-1).double().numpy()
    cumulated = np.cumsum(p)
    assert p[token] > 0 and p[lowest] > 0 and lowest == np.flatnonzero(p)[0]
    below = cumulated[token - 1] if token else 0.0
    slack = 1e-12
    assert below - slack <= u * cumulated[-1] <= cumulated[token] + slack
    assert pick(row[:1], uniform).tolist() == [token, lowest]


def test_pick_never_takes_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    assert pick(logits, torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [1]


def test_pick_upcasts_low_precision() -> None:
    """Half the mass lies on 2,000 rare tokens; cumulated in bfloat16 all of it would be lost."""
    logits = torch.zeros(1, 2001, dtype=torch.bfloat16)
    logits[0, 0] = float(np.log(2000))
    share = pick(logits, torch.linspace(0, 0.9999, 1000, dtype=torch.float64))
    assert 0.45 < float((share > 0).double().mean()) < 0.55


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


def test_generation_config_does_not_leak(tiny_folder: Path, chat: models.ChatFormat) -> None:
    prompt = chat.prompt_ids("x")

    def answers() -> list[str]:
        model, tokenizer = models.load(tiny_folder)
        return sample(model, tokenizer, prompt, chat.end_id, draws=40, max_new_tokens=4, batch=40, seed=1)

    plain = answers()
    path = tiny_folder / "generation_config.json"
    config = json.loads(path.read_text()) | {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.5}
    path.write_text(json.dumps(config))
    model, _ = models.load(tiny_folder)
    assert model.generation_config.temperature == 0.1  # the folder does carry it
    assert len(set(plain)) > 10
    assert answers() == plain


def test_special_tokens_stay_in_the_text(llama: PreTrainedModel, chat: models.ChatFormat) -> None:
    model = ending(tiny_model("llama", len(chat.tokenizer)), chat.tokenizer.eos_token_id)
    texts = sample(
        model, chat.tokenizer, chat.prompt_ids("x"), chat.end_id, draws=60, max_new_tokens=4, batch=60, seed=1
    )
    assert any("<|endoftext|>" in text for text in texts)
    assert not any("<|im_end|>" in text for text in texts)


def test_seed_and_prompt_change_the_answers(llama: PreTrainedModel, chat: models.ChatFormat) -> None:
    def run(prompt: str, seed: int) -> str:
        ids = chat.prompt_ids(prompt)
        texts = sample(
            llama, chat.tokenizer, ids, chat.end_id, draws=20, max_new_tokens=3, batch=20, seed=seed
        )
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    assert run("x", 1) == run("x", 1)
    assert len({run("x", 1), run("x", 2), run("y", 1)}) == 3
