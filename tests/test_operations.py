"""Counted operations against torch's own counter, which looks at every product that is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from test_finetune import method, some_examples
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

from calibnb.models import chatformat
from calibnb.models.operations import ATTENTION, Operations, tflop
from calibnb.training import adapters
from calibnb.training.mixture import Turn
from calibnb.training.objective import TrieLoss
from calibnb.training.packing import batch, ordinary_example
from calibnb.trees.attention import Body, answer_log_probabilities
from calibnb.trees.number_search import number_tokens, open_law
from calibnb.trees.sampling import sample
from calibnb.trees.trie import build

from conftest import tiny_model  # isort: skip

CPU = torch.device("cpu")
SIZES = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "max_position_embeddings": 5000},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "tie_word_embeddings": False},
}
MADE = {"qwen2": (Qwen2ForCausalLM, Qwen2Config), "llama": (LlamaForCausalLM, LlamaConfig)}


@pytest.fixture(params=list(MADE))
def model(request: pytest.FixtureRequest, digit_tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Nobody else's: what is watched once is watched for good."""
    torch.manual_seed(0)
    kind, config = MADE[request.param]
    made: PreTrainedModel = kind(config(vocab_size=len(digit_tokenizer), **SIZES)).eval()
    assert made.config._attn_implementation == "sdpa"
    return made


@pytest.fixture
def chat(digit_tokenizer: PreTrainedTokenizerFast) -> chatformat.ChatFormat:
    return chatformat.chat_format(digit_tokenizer)


@contextmanager
def counted_by_torch() -> Iterator[list[int]]:
    """Its count, once the block has ended. Attention is made of plain products, as it knows none of a CPU's others."""
    found: list[int] = []
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield found
    tables = sum(sum(n.values()) for name, n in counter.get_flop_counts().items() if name.endswith("rotary_emb"))
    found.append(counter.get_total_flops() - tables)


def test_the_trial_of_a_model_counts(model: PreTrainedModel) -> None:
    with counted_by_torch() as expected:
        body = Body(model)
    assert [body.operations.count] == expected


def test_passes_of_all_kinds_are_counted_exactly(model: PreTrainedModel, chat: chatformat.ChatFormat) -> None:
    body, prompt = Body(model), chat.prompt_ids("x")
    numbers = number_tokens(chat.tokenizer.get_vocab())
    trie = build(chat.answer_ids(["1", "12", "0.5"]), [0.2, 0.3, 0.5], chat.end_id)
    how = {"draws": 3, "max_new_tokens": 4, "batch": 3, "seed": 0}

    def generate() -> None:
        with body.counting():
            model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)

    for run in (
        lambda: answer_log_probabilities(body, prompt, trie, block=2),
        lambda: open_law(body, prompt, numbers, chat.end_id, tolerance=0.0, max_nodes=40, nodes_per_pass=8),
        lambda: list(sample(body, chat, [prompt, chat.prompt_ids("a word")], **how)),
        generate,
    ):
        before = body.operations.count
        with counted_by_torch() as expected:
            run()
        assert [body.operations.count - before] == expected and expected[0] > 0


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("near", [0.0, 0.5])
@pytest.mark.parametrize("alike", [True, False])
def test_a_training_step_is_counted_exactly(
    model: PreTrainedModel, chat: chatformat.ChatFormat, targets: str, near: float, alike: bool
) -> None:
    """Nothing behind the last use of the prefix has a gradient, and nothing in front of the first adapter has one."""
    loss = TrieLoss(adapters.with_adapter(model, method(lora_targets=targets, lora_dropout=0.1)), chunk=3)
    examples = [e for e, _, _ in some_examples(chat, "paths", "tokens")]
    if not alike:  # with a system message all prompts share but their first token
        examples.append(ordinary_example(Turn("What is it?", "a word", system="y"), chat))
    loss.train()
    one, operations = batch(examples, CPU, row_tokens=40), loss.body.operations
    before = operations.count
    with counted_by_torch() as expected:
        loss(one, 0.7, near).backward()
    assert [operations.count - before] == expected
    before = operations.count
    with torch.no_grad(), counted_by_torch() as expected:
        loss(one)
    assert [operations.count - before] == expected


def test_attention_that_is_not_looked_up_is_left_out(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("gpt_oss", len(digit_tokenizer))
    operations = Operations(model)
    token = torch.arange(6)[None]
    with operations.attention(model.config._attn_implementation):
        model(token)
    layers = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    assert operations.count == 2 * token.numel() * sum(layer.weight.numel() for layer in layers)


def test_the_library_attends_afterwards_as_before(model: PreTrainedModel) -> None:
    operations, before = Operations(model), ATTENTION["sdpa"]
    with pytest.raises(ZeroDivisionError), operations.attention("sdpa"):
        assert ATTENTION["sdpa"] is not before
        1 / 0  # noqa: B018
    assert ATTENTION["sdpa"] is before


def test_counting_changes_no_number(model: PreTrainedModel) -> None:
    token = torch.arange(9)[None]
    before = model(token).logits
    operations = Operations(model)
    with operations.attention("sdpa"):
        assert torch.equal(model(token).logits, before)
    assert tflop(operations.count) == operations.count / 10**12 > 0
