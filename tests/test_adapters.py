"""Which weights an adapter is put on, over the architectures of the installed transformers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.utils import logging

from calibnb.errors import UserError
from calibnb.pipeline import params
from calibnb.training import adapters
from calibnb.training.params import FinetuneParams
from calibnb.trees.attention import Body

SOFT = params.load(Path(__file__).parent.parent / "params.yaml").finetune["soft"]
SOFT = SOFT.model_copy(update={"lora_targets": "all-linear"})
TEXT = torch.arange(20, 44)[None]
PRODUCTS = {"linear", "matmul", "__matmul__", "bmm", "addmm", "baddbmm", "mm", "einsum", "grouped_mm", "_grouped_mm"}


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(level)


def method(**lora: Any) -> FinetuneParams:
    return SOFT.model_copy(update={"lora_rank": 2, "lora_alpha": 4.0} | lora)


@cache
def measured() -> list[str]:
    """The architectures that are measured, so those that can be trained."""
    return [t for t in zoo.TINY if isinstance(zoo.body_of(t, zoo.WINDOW), Body)]


class Products(TorchFunctionMode):
    """Sees which storages are multiplied as matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.__name__ in PRODUCTS:
            for x in (*args, *kwargs.values()):
                if isinstance(x, Tensor):
                    self.storages.add(x.untyped_storage().data_ptr())
        return function(*args, **kwargs)


def multiplied(model: PreTrainedModel) -> set[str]:
    """Parameters that the model's own forward uses as matrices, but for head and embeddings."""
    with torch.no_grad(), Products() as seen:
        model(input_ids=TEXT, use_cache=False)
    tables = {id(p) for part in model.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    tables |= {id(p) for p in model.get_output_embeddings().parameters()}
    return {
        name
        for name, p in model.named_parameters()
        if p.ndim >= 2 and id(p) not in tables and p.untyped_storage().data_ptr() in seen.storages
    }


def adapted(model: PeftModel) -> set[str]:
    """Parameters of the model before, that an adapter is on."""
    found = set()
    for name, part in model.get_base_model().named_modules():
        if hasattr(part, "lora_A") and len(part.lora_A):
            bare = name.replace(".base_layer", "")
            found.add(f"{bare}.{part.parameter_name if hasattr(part, 'parameter_name') else 'weight'}")
    return found


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=TEXT, use_cache=False).logits
    return found


def adapted_or_refused(model_type: str, targets: str) -> set[str]:
    """What has an adapter, empty where the model is refused by name; nothing that it multiplies by goes without."""
    model = zoo.tiny(model_type)
    expected = multiplied(model)
    if targets == "attention":
        expected = {name for name in expected if "attn" in name or "attention" in name}
    assert expected
    try:
        made = adapted(adapters.with_adapter(model, method(lora_targets=targets)))
    except UserError as error:
        assert str(error).startswith("lora_targets: peft cannot")
        assert model_type in str(error)
        assert "\n" not in str(error)
        return set()
    assert expected <= made, (model_type, expected - made)
    assert not {n for n in made if "embed_tokens" in n or "lm_head" in n or "vision" in n or "audio" in n}
    return made


def test_every_linear_layer_but_the_head_is_adapted_or_the_model_is_refused() -> None:
    refused = {model_type for model_type in measured() if not adapted_or_refused(model_type, "all-linear")}
    assert len(measured()) - len(refused) > 70
    plain = {"gemma3", "glm4", "gpt2", "gpt_oss", "llama", "mistral", "phi3", "qwen2", "qwen3", "starcoder2"}
    assert not refused & plain


@pytest.mark.parametrize(
    "model_type",
    [
        "llama",
        "gemma3",
        "gpt_oss",
        "phi3",
        "falcon",
        "gpt2",
        "codegen",
        "deepseek_v3",
        "doge",
        "jetmoe",
        "longcat_flash",
    ],
)
def test_attention_is_the_linear_layers_inside_it_whatever_their_names(model_type: str) -> None:
    made = adapted_or_refused(model_type, "attention")
    assert made
    assert all("attn" in name or "attention" in name for name in made)


@pytest.mark.parametrize(
    "model_type",
    ["llama", "starcoder2", "glm4", "phi3", "gpt2", "falcon", "gpt_oss", "mixtral", "qwen3_moe", "aria_text"],
)
def test_an_adapter_is_read_back_and_merged_as_it_was_trained(tmp_path: Path, model_type: str) -> None:
    """A fresh one changes nothing; each of its parameters gets a gradient; switched off it is the base again."""
    model = zoo.tiny(model_type)
    base = logits(model)
    tuned = adapters.with_adapter(model, method())
    torch.testing.assert_close(logits(tuned), base, atol=1e-5, rtol=1e-5)
    generator = torch.Generator().manual_seed(3)
    trained = [p for p in tuned.parameters() if p.requires_grad]
    for p in trained:
        assert p.dtype == torch.float32
        p.data = torch.randn(p.shape, generator=generator) * 0.1
    changed = logits(tuned)
    assert (changed - base).abs().max() > 0.1
    tuned(input_ids=TEXT, use_cache=False).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    with tuned.disable_adapter():
        torch.testing.assert_close(logits(tuned), base, atol=1e-5, rtol=1e-5)
    adapters.save_adapter(tuned, tmp_path / "adapter")
    read = PeftModel.from_pretrained(zoo.tiny(model_type), str(tmp_path / "adapter")).merge_and_unload()
    torch.testing.assert_close(logits(read), changed, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("model_type", ["afmoe", "deepseek_v3", "laguna"])
def test_what_peft_would_lose_is_refused_by_name(model_type: str) -> None:
    with pytest.raises(UserError, match=rf"^lora_targets: peft cannot adapt \S*layers\.[^\n]* of {model_type} "):
        adapters.with_adapter(zoo.tiny(model_type), method())


def test_dropout_before_experts_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^lora_dropout: must be 0 for gpt_oss, whose model\.layers\.0\.mlp\..*, got 0.1$"
    ):
        adapters.with_adapter(zoo.tiny("gpt_oss"), method(lora_dropout=0.1))
    adapters.with_adapter(zoo.tiny("gpt_oss"), method(lora_dropout=0.1, lora_targets="attention"))


@pytest.mark.parametrize("targets", ["all-linear", "attention"])
def test_the_adapters_of_llama_are_those_of_its_seven_layers(targets: str) -> None:
    """Their names, their order and their first values: a seed gives the run that it gave."""
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    named = names if targets == "all-linear" else names[:4]
    base = zoo.tiny("llama")
    torch.manual_seed(5)
    found = adapters.with_adapter(base, method(lora_targets=targets))
    base = zoo.tiny("llama")
    torch.manual_seed(5)
    expected = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, target_modules=named, task_type="CAUSAL_LM"))
    pairs = list(zip(found.named_parameters(), expected.named_parameters(), strict=True))
    assert sum("lora_" in name for (name, _), _ in pairs) == 2 * zoo.LAYERS * len(named)
    for (name, p), (other, q) in pairs:
        assert name == other
        assert torch.equal(p, q)
