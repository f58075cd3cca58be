"""Loading a model from its folder, on a device and in a number format."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import logging as transformers_logging
from transformers.utils.quantization_config import Mxfp4Config

from calibnb.errors import UserError
from calibnb.models.folders import brief_error, check_folder, config_of, listing, quantisation_of


def pick_device(name: str) -> torch.device:
    """The device that `name` (auto, cpu, cuda, cuda:N) stands for; auto takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"compute.device: {name!r} is not known; allowed: auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"compute.device: {name} asked for, but {torch.cuda.device_count()} CUDA devices found")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `name` (auto, bfloat16, float32) stands for on a device.

    auto is bfloat16 where the hardware multiplies in it (a GPU with bfloat16, a CPU with avx512_bf16 or
    amx_bf16: about five times faster) and float32 elsewhere, where bfloat16 would be emulated and slower.
    """
    if name in ("bfloat16", "float32"):
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if name != "auto":
        raise UserError(f"compute.dtype: {name!r} is not known; allowed: auto, bfloat16, float32")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = any(able.get(unit, False) for unit in ("avx512_bf16", "amx_bf16"))  # ARM lists neither
    return torch.bfloat16 if fast else torch.float32


def model_of(folder: Path, name: str, *, trust_remote_code: bool, **how: Any) -> PreTrainedModel:
    """The model of a folder, every number of it from the folder's weights.

    Parameters
    ----------
    folder : Path
        Folder of the model.
    name : str
        What errors call it.
    trust_remote_code : bool
        Whether code that comes with the model may run.
    **how
        dtype, or device_map="meta" for the shapes alone, which are made and compared without reading a tensor.

    Raises
    ------
    UserError
        For weights that lack a tensor (transformers would fill it with random numbers), have one of another shape, or
        one that the model has no place for.
    """
    if quantisation_of(folder) == "mxfp4":
        how["quantization_config"] = Mxfp4Config(dequantize=True)
    config = _configuration(folder, name, trust_remote_code)
    with _transformers(folder, name, "model", bars="device_map" not in how):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            generation_config=GenerationConfig(),  # else that of the folder, which is for other uses than measuring
            use_safetensors=True,
            attn_implementation=None,  # not what the configuration was saved with: sdpa, or eager for want of it
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told with the rest
            **how,
        )
    model: PreTrainedModel = loaded[0]
    found = loaded[1]
    lacking, extra = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    wrong = [f"{key} ({list(got)}, not {list(due)})" for key, got, due in sorted(found["mismatched_keys"])]
    told = {"lack": lacking, "have other shapes in": wrong, "hold": extra}
    problems = [f"{what} {listing(keys)}" for what, keys in told.items() if keys]
    if problems:
        raise UserError(
            f"models: {name}: the weights are not those of {type(model).__name__}: they {', and '.join(problems)}"
        )
    return model


def _configuration(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedConfig:
    """The configuration of a model without what it may hold of how the model should write or what it returns.

    A key that a generation config has too, as old folders keep it in config.json, is dropped unless the model's own
    configuration declares it.
    """
    if config_of(folder)["model_type"] not in CONFIG_MAPPING and not trust_remote_code:
        raise UserError(f"models: {name} brings code of its own; compute.trust_remote_code: true lets it run")
    with _transformers(folder, name, "configuration"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    config.output_attentions, config.output_hidden_states, config.return_dict = False, False, True
    declared = inspect.signature(type(config).__init__).parameters
    for key in GenerationConfig().to_dict():
        if key in vars(config) and key not in declared and not hasattr(type(config), key):
            delattr(config, key)
    return config


def tokenizer_of(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    with _transformers(folder, name, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    tokenizer.name_or_path = name  # for errors: the folder may be a temporary one
    return tokenizer


@contextlib.contextmanager
def _transformers(folder: Path, name: str, what: str, *, bars: bool = False) -> Iterator[None]:
    """What transformers cannot make of a folder is a UserError, and what it would warn of stays unsaid.

    A setting that nothing can be built from ends in any of these errors, wherever a class first uses it. Tables of
    missing tensors are said in one line by the caller. bars: draw the bars of progress.
    """
    verbosity, drawn = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not bars:
        transformers_logging.disable_progress_bar()
    try:
        yield
    except (
        ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, StrictDataclassError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        reason = brief_error(error).replace(str(folder), name)
        raise UserError(f"models: {name}: transformers cannot make the {what} of it ({reason})") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if drawn:
            transformers_logging.enable_progress_bar()


def load(
    folder: Path | str,
    *,
    adapter: Path | str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in evaluation mode and its tokenizer, from a folder that `fetch` made.

    Attention is sdpa, or eager where the model knows no other (GPT-OSS with its attention sinks). MXFP4 weights are
    unpacked.

    Parameters
    ----------
    folder : Path or str
        Folder of the model.
    adapter : Path or str or None
        A LoRA folder, merged into the weights. Rounded to bfloat16 they agree with a float32 run as well as the adapter
        beside them does, and run in two thirds of the time.
    device, dtype : torch.device or str, torch.dtype
        Where and in what it computes.
    trust_remote_code : bool
        Whether code that comes with the model may run.

    Raises
    ------
    UserError
        For files that are missing or are not those of one model.
    """
    folder = Path(folder)
    check_folder(folder)
    model = model_of(folder, str(folder), trust_remote_code=trust_remote_code, dtype=dtype)
    tokenizer = tokenizer_of(folder, str(folder), trust_remote_code)
    if adapter is not None:
        from peft import PeftModel

        names = ("adapter_config.json", "adapter_model.safetensors")
        missing = [name for name in names if not (Path(adapter) / name).is_file()]
        if missing:
            raise UserError(f"{adapter}: missing {', '.join(missing)}")
        model = cast(PreTrainedModel, PeftModel.from_pretrained(model, str(adapter)).merge_and_unload())
    torch.nn.Module.to(model, device)  # the model's own `to` is typed for other uses
    return model.eval(), tokenizer
