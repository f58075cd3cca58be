"""What lies in a model's folder: one set of dense safetensors, a configuration and a tokenizer, or one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING
from transformers import __version__ as transformers_version
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from calibnb import json_files
from calibnb.errors import UserError


def tensors_in(file: Path) -> dict[str, tuple[list[int], str]]:
    """Name -> shape and type, as safetensors spells it, of the tensors of a file; from its header."""
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118, it is no mapping
            return {key: (part.get_shape(), part.get_dtype()) for key, part in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{file}: cut off or no safetensors ({brief_error(error)}); download it again") from error


WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_folder(folder: Path, *, published: bool = False) -> None:
    """UserError unless `folder` holds a configuration, a tokenizer and the safetensors of one model.

    Parameters
    ----------
    folder : Path
        Folder of the model.
    published : bool
        A snapshot of a hub repository, in which other weights may lie beside the model's; they are left there. In any
        other folder nobody can tell which of them are meant, so it is refused, with their names.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; models are folders with config.json, a tokenizer and *.safetensors")
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        missing.append("tokenizer.json")
    if missing:
        raise UserError(f"{folder}: missing {', '.join(missing)}")
    _check_texts(folder)
    _check_config(folder)
    weights = weights_files(folder)
    own = [file.name for file in weights]
    others = sorted({file.name for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern)} - {*own, INDEX})
    if others and not published:
        raise UserError(
            f"{folder}: {listing(others)} beside the model's weights ({listing(own)}), of which they are no part; "
            "keep one set of weights in the folder"
        )


# What transformers would read in place of a model's weights or over them, or has another model's numbers in it.
_OTHER_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
_SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def listing(names: Sequence[str], most: int = 4) -> str:
    """Names in a line of bounded length."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def weights_files(folder: Path) -> list[Path]:
    """The files that the model's weights are in, sorted: `model.safetensors`, or the shards that an index names.

    They are what is hashed, counted and loaded.

    Raises
    ------
    UserError
        Where there are none and where both are there, for an index that names other files or tensors than there are,
        and for a configuration that names weights of its own.
    """
    single, index = folder / _SINGLE, folder / INDEX
    if "transformers_weights" in config_of(folder):
        raise UserError(f"{folder}/config.json: transformers_weights names other weights than {_SINGLE}; drop the key")
    if index.is_file():
        if single.is_file() and _SINGLE not in _weight_map(index).values():
            raise UserError(f"{folder}: two sets of weights, {_SINGLE} and that of {INDEX}; remove one")
        return _shards(index)
    if single.is_file():
        tensors_in(single)  # which opens it
        return [single]
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles and not found:
        raise UserError(
            f"{folder}: only pickled weights ({', '.join(pickles)}), which are not opened; save them as safetensors"
        )
    if found:
        raise UserError(f"{folder}: missing {_SINGLE} or {INDEX}, which say what is the model; got {listing(found)}")
    raise UserError(f"{folder}: missing {_SINGLE}")


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file, as an index says."""
    names: dict[str, str] | None = _object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{index}: no weight_map, which must name the file of each tensor")
    for tensor, file in names.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"{index}: {tensor} is named for {file!r}; allowed: a *.safetensors file beside the index")
    return names


def _shards(index: Path) -> list[Path]:
    """The files of an index, which hold the tensors that it names and no others."""
    named = _weight_map(index)
    files = [index.parent / name for name in sorted(set(named.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{index.parent}: missing {', '.join(missing)}")
    for file in files:
        here, held = {tensor for tensor, name in named.items() if name == file.name}, set(tensors_in(file))
        if here - held:
            raise UserError(f"{index}: {file.name} does not hold {listing(sorted(here - held))}, which it is named for")
        if held - here:
            raise UserError(f"{index}: does not name {listing(sorted(held - here))}, which {file.name} holds")
    return files


def _object(path: Path) -> dict[str, Any]:
    """The object in a json file. Raises UserError for anything else in it."""
    value = json_files.decode(path.read_bytes(), str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a json object, got a {type(value).__name__}")
    return value


def config_of(folder: Path) -> dict[str, Any]:
    """`config.json` as it is written."""
    return _object(folder / "config.json")


# What transformers reads of a model's folder, beside its weights and their index, if it is there.
_READ = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "chat_template.json",
)  # fmt: skip
_POINTER = b"version https://git-lfs.github.com/spec/"


def _check_texts(folder: Path) -> None:
    """UserError for a file that a clone without git-lfs left as a pointer, and for one that is not what its name says.

    transformers stumbles over them with a traceback. Nothing here reads generation_config.json.
    """
    for file in sorted(file for pattern in WANTED for file in folder.glob(pattern) if file.is_file()):
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                raise UserError(f"{file}: a git-lfs pointer, not the file itself; run git lfs pull in {folder}")
    read = {name: _object(folder / name) for name in _READ if (folder / name).is_file()}
    for file in sorted(folder.glob("*.jinja")):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: not utf-8 (byte {error.start + 1})") from error
    if "tokenizer.json" in read:
        backend = read["tokenizer.json"]
        if not isinstance(backend.get("model"), dict) or not isinstance(backend.get("added_tokens"), list):
            raise UserError(f"{folder}/tokenizer.json: no tokenizer, which has a model and added_tokens")


def _check_config(folder: Path) -> None:
    """UserError for a configuration that does not say of which kind its model is, or says one that cannot be read."""
    path, config = folder / "config.json", config_of(folder)
    kind, own_code = config.get("model_type"), config.get("auto_map") or {}
    if not isinstance(kind, str) or not kind:
        raise UserError(f"{path}: model_type must be the kind of the model as a text (llama), got {kind!r}")
    if not isinstance(own_code, dict):
        raise UserError(f"{path}: auto_map must be null or name the class for each use, got {own_code!r}")
    if kind not in CONFIG_MAPPING and not own_code:
        raise UserError(
            f"{path}: model_type {kind!r} is unknown to transformers {transformers_version}; allowed: a kind that it "
            "knows, or a model that brings code of its own"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "AutoModelForCausalLM" not in own_code:
        raise UserError(
            f"{path}: transformers {transformers_version} has no causal language model for model_type {kind!r}, so "
            "none that is asked in words alone; name a model of text, or the text part of this one saved by itself"
        )
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(
            f'{path}: architectures must name the class that the weights are of (["LlamaForCausalLM"]), got {classes!r}'
        )
    method = quantisation_of(folder)
    if method not in (None, "mxfp4"):
        raise UserError(
            f"{folder}: weights quantised by {method}, which nothing here unpacks; allowed: dense weights, or mxfp4"
        )


def quantisation_of(folder: Path) -> str | None:
    """How the weights in `folder` are packed, as their configuration says; None where they are dense."""
    packing = config_of(folder).get("quantization_config")
    if packing is None:
        return None
    if not isinstance(packing, dict) or not isinstance(packing.get("quant_method"), str):
        raise UserError(f"{folder}/config.json: quantization_config must be null or name a quant_method, got {packing}")
    return str(packing["quant_method"])


def brief_error(error: BaseException) -> str:
    """The kind and the text of an error, on one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"
