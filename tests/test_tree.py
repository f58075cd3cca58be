"""Tree attention against one forward pass a path, on four architectures, whole, in blocks, and packed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    PreTrainedModel,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from calibnb.errors import UserError
from calibnb.trees.attention import (
    Body,
    Segment,
    answer_log_probabilities,
    blocks,
    log_probabilities,
    pack,
    segment,
    shared_prefix,
)
from calibnb.trees.trie import Trie, ancestors_of, build

END = 2
PROMPT = [5, 17, 40, 8, 9, 23, 31, 7, 12, 60, 44]


def some_answers(seed: int, count: int = 40) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    drawn = {tuple(int(t) for t in rng.integers(20, 24, rng.integers(0, 7))) for _ in range(count)}
    return sorted(drawn)


def some_trie(seed: int = 0) -> Trie:
    answers = some_answers(seed)
    return build(answers, np.random.default_rng(seed).dirichlet(np.ones(len(answers))), END)


@torch.inference_mode()
def path_by_path(model: PreTrainedModel, prompt: list[int], answers: list[tuple[int, ...]]) -> np.ndarray:
    """Log-probability of each answer from a plain causal forward pass of its own."""
    found = []
    for answer in answers:
        row = [*prompt, *answer]
        logp = torch.log_softmax(model(torch.tensor([row])).logits[0].double(), -1)
        targets = [*answer, END]
        found.append(sum(float(logp[len(prompt) - 1 + k, t]) for k, t in enumerate(targets)))
    return np.array(found)


@pytest.mark.parametrize("block", [1024, 7, 1])
def test_tree_attention_equals_path_by_path(any_model: PreTrainedModel, block: int) -> None:
    """Gemma-3 and GPT-OSS have a window shorter than the prompt plus the depth."""
    expected = path_by_path(any_model, PROMPT, some_answers(0))
    found = answer_log_probabilities(Body(any_model), PROMPT, some_trie(0), block)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.ptp(expected) > 1  # the answers differ, or the test would see nothing


def test_the_window_matters_in_the_windowed_models(any_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with its window taken away gives other answers, so the test above does check the window."""
    if "sliding_window" not in any_model.config.to_dict() or any_model.config.sliding_window is None:
        pytest.skip("this architecture has no sliding window")
    body, trie = Body(any_model), some_trie(0)
    right = answer_log_probabilities(body, PROMPT, trie)
    monkeypatch.setattr(any_model.config, "sliding_window", 512)
    assert np.abs(answer_log_probabilities(body, PROMPT, trie) - right).max() > 1e-3


def test_packed_prompts_equal_each_prompt_alone(any_model: PreTrainedModel) -> None:
    body = Body(any_model)
    prompts = [[*PROMPT[:6], *own] for own in ([1, 50, 33], [70, 12], [3, 3, 3, 61, 13])]
    tries = [some_trie(i) for i in range(3)]
    assert shared_prefix(prompts) == 6
    pieces = [segment(p, 6, t, ~t.is_end) for p, t in zip(prompts, tries, strict=True)]
    rows = pack(pieces, 60, torch.device("cpu"))
    hidden = body.rows(rows, PROMPT[:6])
    for start, piece, prompt, trie in zip(rows.start, pieces, prompts, tries, strict=True):
        children = np.arange(1, len(trie.token))
        found = body.scores(hidden, start + piece.index[trie.parent[children]], trie.token[children])
        np.testing.assert_allclose(found, log_probabilities(body, prompt, trie)[1:], atol=2e-5)


def test_blocks_own_every_inner_node_once_and_run_its_ancestors() -> None:
    trie = some_trie(1)
    owned = np.zeros(len(trie.token), int)
    for keep, own in blocks(trie, 5):
        owned += own
        assert own.sum() <= 5
        np.testing.assert_array_equal(keep, ancestors_of(trie, np.flatnonzero(own)))
    np.testing.assert_array_equal(owned, ~trie.is_end)


def test_packing_loses_nothing_and_never_overlaps() -> None:
    trie = some_trie(2)
    pieces = [segment(PROMPT[: 3 + i], 1, trie, trie.depth <= d) for i, d in enumerate((1, 2, 3, 2))]
    rows = pack(pieces, 40, torch.device("cpu"))
    size = rows.token.shape[1]
    taken = np.zeros(rows.token.numel(), int)
    for start, piece in zip(rows.start, pieces, strict=True):
        here = slice(start, start + len(piece.token))
        assert start // size == (start + len(piece.token) - 1) // size  # within one row
        np.testing.assert_array_equal(rows.token.ravel()[here].numpy(), piece.token)
        np.testing.assert_array_equal(rows.position.ravel()[here].numpy(), piece.position)
        taken[here] += 1
    assert taken.max() == 1


@given(st.lists(st.integers(1, 80), min_size=1, max_size=30), st.integers(1, 100))
def test_rows_are_almost_equally_long(lengths: list[int], row_tokens: int) -> None:
    none = np.zeros(0, np.int64)
    pieces = [Segment(np.arange(n), np.arange(n), np.full(n, n), none) for n in lengths]
    count, size = pack(pieces, row_tokens, torch.device("cpu")).token.shape
    # Longest first to the least full: no row is longer than the mean by more than one segment.
    assert sum(lengths) <= count * size <= sum(lengths) + (count - 1) * max(lengths)
    assert count == math.ceil(sum(lengths) / max(row_tokens, *lengths))


def test_a_segment_needs_a_token_of_its_own_and_prefixes_leave_one() -> None:
    with pytest.raises(ValueError, match="last prompt token"):
        segment(PROMPT, len(PROMPT), some_trie(), ~some_trie().is_end)
    assert shared_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_prefix([[1, 2, 3], [4, 2, 3]]) == 0
    assert shared_prefix([[1]]) == 0


def test_scores_are_float32_log_softmax_in_chunks(llama: PreTrainedModel) -> None:
    body = Body(llama)
    hidden = torch.randn(9, 32)
    row, token = np.array([8, 0, 3, 3, 8]), np.array([1, 2, 3, 4, 5])
    expected = torch.log_softmax(hidden.double() @ llama.lm_head.weight.double().T, -1)[row, token]
    np.testing.assert_allclose(body.scores(hidden, row, token, chunk=2), expected.detach().numpy(), atol=1e-5)


SIZES = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 8}
SIZES |= {"num_attention_heads": 1, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}


def test_models_that_cap_their_logits_are_refused_however_far_the_cap() -> None:
    for cap in (30.0, 1e-3):
        config = Gemma2Config(**SIZES, final_logit_softcapping=cap)
        with pytest.raises(UserError, match=r"^models: gemma2 caps, scales or transforms its logits"):
            Body(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    config = Gemma2Config(**SIZES, final_logit_softcapping=None)
    Body(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


@pytest.mark.parametrize("key", ["logits_scaling", "logit_scale"])
def test_models_that_scale_their_logits_are_refused(key: str) -> None:
    kind = {"logits_scaling": GraniteConfig, "logit_scale": CohereConfig}[key]
    with pytest.raises(UserError, match="caps, scales or transforms its logits"):
        Body(AutoModelForCausalLM.from_config(kind(**SIZES, **{key: 0.5})))
    Body(AutoModelForCausalLM.from_config(kind(**SIZES, **{key: 1.0})))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_tried_once_and_left_as_it_was(dtype: torch.dtype) -> None:
    """Modes, gradients, hooks, the library's mask makers and the stream of random numbers."""
    model = tiny_model("llama", 64).to(dtype)
    model.model.layers[0].train()
    modes, masks = [part.training for part in model.modules()], dict(ALL_MASK_ATTENTION_FUNCTIONS)
    random = torch.get_rng_state()
    Body(model)
    assert [part.training for part in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not model.model._forward_hooks
    assert dict(ALL_MASK_ATTENTION_FUNCTIONS) == masks
    assert torch.equal(torch.get_rng_state(), random)
