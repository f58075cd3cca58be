"""Every decoder architecture of the installed transformers is measured right or refused in one line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import zoo
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.utils import logging
from zoo import TINY, body_of, made

from calibnb.errors import UserError
from calibnb.trees.attention import Body

LENGTH = 40  # of the texts, five windows
SHARED = 12  # of the tokens of two texts
# With a window, and with none, where a switch of the configuration also says so.
WINDOWS = pytest.mark.parametrize("window", [zoo.WINDOW, None], ids=["window", "none"])
# Families of chat models that were measured wrongly beyond their windows, or are simply much used.
MEASURED = (
    "ernie4_5", "gemma3", "gemma3_text", "gemma4", "glm4", "gpt_oss", "granite_swa", "llama", "ministral", "mistral",
    "mixtral", "olmo2", "olmo3", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "starcoder2",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(level)


def texts() -> Tensor:
    """Two texts ``[2, LENGTH]`` that begin alike."""
    generator = torch.Generator().manual_seed(1)
    both = torch.randint(zoo.VOCABULARY // 4, zoo.VOCABULARY, (2, LENGTH), generator=generator)
    both[1, :SHARED] = both[0, :SHARED]
    return both


@torch.inference_mode()
def own_logits(model: PreTrainedModel) -> Tensor:
    """By the model's own forward, each text alone."""
    return torch.cat([model(input_ids=text[None], use_cache=False).logits for text in texts()])


@torch.inference_mode()
def tree_logits(body: Body, steps: int) -> Tensor:
    """The two texts as one tree, its branches interleaved, after a cached prefix; the cache grows over ``steps``."""
    both = texts()
    prefix = both[0, :SHARED].tolist()
    filled = body.encode(prefix)
    assert isinstance(filled, DynamicCache)
    token = both[:, SHARED:].T.flatten()  # the texts' tokens in turn
    branch = torch.arange(2).repeat(LENGTH - SHARED)
    position = torch.arange(SHARED, LENGTH).repeat_interleave(2)
    found = []
    for part in torch.arange(len(token)).tensor_split(steps):
        until = int(part[-1]) + 1
        tree = (branch[part, None] == branch[None, :until]) & (position[part, None] >= position[None, :until])
        visible = torch.cat([torch.ones(len(part), SHARED, dtype=torch.bool), tree], dim=1)
        keys = torch.cat([torch.arange(SHARED), position[:until]])
        found.append(body.forward(token[part][None], position[part][None], visible[None], keys[None], filled)[0])
    hidden = torch.cat(found)
    return torch.stack([body.logits(hidden[i::2]) for i in range(2)])


@torch.inference_mode()
def plain_logits(body: Body) -> Tensor:
    """Each text alone, without a cache."""
    both, position = texts(), torch.arange(LENGTH).expand(2, -1)
    hidden = body.forward(both, position, position[:, :, None] >= position[:, None, :], position, None)
    return body.logits(hidden.flatten(0, 1)).view(2, LENGTH, -1)


def assert_measured_right(model: PreTrainedModel, body: Body) -> None:
    own = own_logits(model)
    torch.testing.assert_close(plain_logits(body), own, atol=1e-4, rtol=1e-4)
    for steps in (1, 7):
        torch.testing.assert_close(tree_logits(body, steps), own[:, SHARED:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model_type", TINY)
@WINDOWS
def test_a_tree_gives_the_models_own_logits_or_the_model_is_refused(model_type: str, window: int | None) -> None:
    body = body_of(model_type, window)
    if isinstance(body, str):
        assert body.startswith("models: ")
        assert "\n" not in body
    else:
        assert_measured_right(made(model_type, window), body)


def test_few_architectures_are_left_out_and_many_are_measured() -> None:
    """Or the test above would be about less and less."""
    assert set(zoo.NOT_TINY) < set(zoo.TYPES)
    assert len(TINY) >= 0.9 * len(zoo.TYPES)
    for window in (zoo.WINDOW, None):
        measured = {t for t in TINY if isinstance(body_of(t, window), Body)}
        assert len(measured) >= 0.5 * len(zoo.TYPES)
        assert measured >= set(MEASURED)


def test_windows_are_seen_by_the_models_themselves() -> None:
    """Where the window changes nothing, agreement with it says nothing."""
    changed = []
    for model_type in TINY:
        if isinstance(body_of(model_type, zoo.WINDOW), Body):
            with_window, without = (own_logits(made(model_type, window)) for window in (zoo.WINDOW, None))
            if (with_window - without).abs().max() > 0.1:
                changed.append(model_type)
    windowed = {"gemma3_text", "gpt_oss", "granite_swa", "mistral", "mixtral", "olmo3", "phi3", "phimoe", "qwen2"}
    assert set(changed) >= windowed | {"qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "starcoder2"}


@pytest.mark.parametrize("window", [1, 2, 11, 12, 13, LENGTH - 1, LENGTH, LENGTH + 1])
@pytest.mark.parametrize("model_type", ["mistral", "qwen2", "gpt_oss"])
def test_windows_of_any_width_are_the_models_own(model_type: str, window: int) -> None:
    model = zoo.tiny(model_type, window)
    assert_measured_right(model, Body(model))


@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("falcon", {"alibi": True}),
        ("gpt_neo", {"attention_types": [[["local"], 4]], "max_position_embeddings": 8192, "window_size": 256}),
        ("minimax_m3_vl_text", {}),
        ("qwen3_next", {}),
        ("bert", {"is_decoder": True}),
        ("roberta", {"is_decoder": True}),
    ],
)
def test_what_goes_by_the_order_of_tokens_is_refused(model_type: str, more: dict[str, object]) -> None:
    """Also where that shows only far beyond the trial's few tokens."""
    with pytest.raises(UserError, match=r"^models: [^\n]*$"):
        Body(zoo.tiny(model_type, 256, **more))


def test_an_adapter_is_part_of_the_model() -> None:
    """The own forward of a peft model is with its adapter, also in the trial."""
    model = zoo.tiny("mistral")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    plain = own_logits(zoo.tiny("mistral"))
    assert_measured_right(model, Body(adapted))
    assert (own_logits(model) - plain).abs().max() > 0.1
