"""Low-rank adapters: which layers get one, and how it is saved."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from calibnb.errors import UserError, room
from calibnb.training.checkpoints import tensor_bytes
from calibnb.training.params import FinetuneParams

TOWERS = re.compile(r"vision|visual|image|audio|speech")
ATTENTION = re.compile(r"(attn|attention)[^.]*\.")  # a module of that name above the layer


def linear_layers(model: PreTrainedModel) -> tuple[list[str], list[str]]:
    """Names of all that multiplies hidden states by a matrix in the decoder: layers, and matrices of other modules.

    The matrices are the stacked weights of experts and the weights of routers, which are no layers of their own.
    Left out are the head, embeddings, and the towers of multimodal models, which see no number.
    """
    inside = set(model.get_decoder().modules()) - {model.get_output_embeddings()}
    layers: list[str] = []
    matrices: list[str] = []
    for name, part in model.named_modules():
        if part not in inside or TOWERS.search(name):
            continue
        if isinstance(part, (nn.Linear, Conv1D)):
            layers.append(name)
        elif not isinstance(part, (nn.Embedding, _ConvNd)) and "Norm" not in type(part).__name__:
            own = part.named_parameters(recurse=False)
            matrices += [f"{name}.{key}" for key, p in own if p.ndim >= 2 and not key.endswith("bias")]
    return layers, matrices


def with_adapter(model: PreTrainedModel, method: FinetuneParams) -> PeftModel:
    """Put a fresh float32 low-rank adapter on all linear layers of the decoder, or on those inside its attention.

    Experts are adapted each by itself; their dense updates exist during a step, so they take memory like the weights.
    Never on embeddings or head: tied weights stay tied, the loss kernel may take the head as frozen, and every
    engine that scores with the adapter agrees (vllm-project/vllm#51594).

    Raises
    ------
    UserError
        There is nothing to adapt, something that peft cannot, or dropout where there are experts.
    """
    layers, matrices = linear_layers(model)
    if method.lora_targets == "attention":
        layers, matrices = ([n for n in names if ATTENTION.search(n)] for names in (layers, matrices))
    kind = model.config.model_type
    if not layers:
        raise UserError(f"lora_targets: {kind} has no linear layers for {method.lora_targets}; allowed: other models")
    if matrices and method.lora_dropout:
        raise UserError(
            f"lora_dropout: must be 0 for {kind}, whose {matrices[0]} is no layer that could drop its input, "
            f"got {method.lora_dropout}"
        )
    config = LoraConfig(
        r=method.lora_rank,
        lora_alpha=method.lora_alpha,  # type: ignore[arg-type]  # peft multiplies by alpha / r, a fraction is fine
        lora_dropout=method.lora_dropout,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=layers,
        target_parameters=matrices or None,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in layers),
    )
    # peft renames targets, and what it reads back, of architectures whose experts were layers in older transformers.
    try:
        made = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"lora_targets: peft cannot put an adapter on {kind}: {error}") from error
    read: Any = set_peft_model_state_dict(made, get_peft_model_state_dict(made, save_embedding_layers=False))
    lost = {name for name in read.missing_keys if made.base_model.prefix in name}
    has = _adapted(made)
    if missing := [name for name in (*layers, *matrices) if name not in has] or sorted(lost):
        raise UserError(
            f"lora_targets: peft cannot adapt {missing[0]} of {kind} and read it back, nor {len(missing) - 1} others, "
            f"got {method.lora_targets}; allowed: other targets or models"
        )
    return made


def _adapted(model: PeftModel) -> set[str]:
    """Names, as in :func:`linear_layers`, of what has an adapter."""
    found = set()
    for name, part in model.get_base_model().named_modules():
        if isinstance(part, LoraLayer):
            # Several matrices of one module are wrapped one around the other.
            bare = name.replace(".base_layer", "")
            found.add(f"{bare}.{part.parameter_name}" if isinstance(part, ParamWrapper) else bare)
    return found


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_adapter(model: PeftModel, out: Path) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, the folder appearing at once."""
    temporary = out.with_name(out.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with room(out, tensor_bytes(trainable_parameters(model))):
            model.save_pretrained(str(temporary), save_embedding_layers=False)
            (temporary / "README.md").unlink(missing_ok=True)  # peft's blank model card
            config = json.loads((temporary / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = None  # a path of this machine
            (temporary / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
