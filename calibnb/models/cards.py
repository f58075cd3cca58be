"""A model's card: what a folder of weights holds, where it came from, and the hashes of what is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from calibnb.errors import UserError
from calibnb.models.chatformat import PROBE, QUESTION, ChatFormat, chat_format
from calibnb.models.folders import config_of, listing, quantisation_of, tensors_in, weights_files
from calibnb.models.loading import model_of, tokenizer_of
from calibnb.models.sources import Source


@dataclass(frozen=True)
class Card:
    """What a folder of weights holds and where it came from; `card.json` beside the weights.

    Attributes
    ----------
    parameters : int
        Trained numbers, a tied head counted once.
    width : int
        Width of the residual stream.
    source : str
        Pinned packages, hub id with its revision, or "folder".
    file_sha256 : str or None
        sha256 of the weights file that was downloaded, None where the source publishes safetensors.
    safetensors_sha256 : dict[str, str]
        File name -> hash of what is used.
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
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

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


def _tie(model: PreTrainedModel, files: Sequence[Path], name: str) -> None:
    """Make one of the parameters of a model without numbers that its files fill with the same ones.

    A tied head may be saved as well as the embedding. Loading compares the two and unties them where they differ, in
    silence. Raises UserError for those, with `name` for the model: its configuration is another model's.
    """
    where = {tensor: file for file in files for tensor in tensors_in(file)}
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
    used |= {*chat.prompt_ids(QUESTION), *chat.answer_ids([PROBE])[0], chat.end_id}
    beyond = sorted(id for id in used if id >= rows)
    if beyond:
        tokens = [f"{tokenizer.convert_ids_to_tokens(id)!r} ({id})" for id in beyond]
        raise UserError(
            f"models: {name}: the tokenizer has {listing(tokens)}, but the weights have rows for ids below {rows}; use "
            "the tokenizer that the weights were trained with, or resize the embedding"
        )


_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def describe(folder: Path, source: Source, origin: str, licence: str | None, trust_remote_code: bool) -> Card:
    """Describe the weights in `folder` from their headers and the model's shapes, without reading a tensor.

    What is counted are the numbers of the model that these files fill, so no other numbers are.
    """
    files = weights_files(folder)
    types = {dtype for file in files for _, dtype in tensors_in(file).values()}
    model = model_of(folder, source.name, trust_remote_code=trust_remote_code, device_map="meta")
    _tie(model, files, source.name)
    _check_ids(model, chat_format(tokenizer_of(folder, source.name, trust_remote_code)), source.name)
    config = model.config.get_text_config()
    return Card(
        name=source.name,
        source=origin,
        licence=licence,
        quantisation=quantisation_of(folder) or source.quantisation,
        file_sha256=source.sha256,
        architecture=config_of(folder)["architectures"][0],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        dtype=", ".join(sorted(_DTYPES[t] if t in _DTYPES else t.lower() for t in types)),
        safetensors_sha256={file.name: file_sha256(file) for file in files},
    )
