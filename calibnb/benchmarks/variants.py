"""What a benchmark measures: a model as it comes, at a fitted temperature, or with the adapter of one training seed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibnb.errors import UserError
from calibnb.models import cards, chatformat, loading, places
from calibnb.models.chatformat import ChatFormat
from calibnb.models.params import ComputeParams
from calibnb.training.params import UNTRAINED
from calibnb.trees.attention import Body
from calibnb.trees.sampling import Journal, Sampler

AS_IT_COMES = -1  # stands for the training seed where nothing was trained


@dataclass(frozen=True)
class Variant:
    """A variant of a model, loaded.

    Attributes
    ----------
    seed : int
        The training seed, or `AS_IT_COMES`.
    body, chat : Body, ChatFormat
        For exact measures.
    ask : Sampler
        For sampled ones; its answers are kept on disk until the stage is `done`.
    """

    model: str
    variant: str
    seed: int
    body: Body
    chat: ChatFormat
    ask: Sampler

    @property
    def who(self) -> dict[str, str | int]:
        """The columns that tell its measurements from others'."""
        return {"model": self.model, "variant": self.variant, "seed": self.seed}


def _scratch(model: str, benchmark: str) -> Path:
    return Path(".scratch") / benchmark / places.place(model)


def load(
    model: str, variant: str, seeds: Sequence[int], compute: ComputeParams, *, benchmark: str, batch: int
) -> Iterator[Variant]:
    """A variant once for each of its training seeds, loaded when its turn comes.

    Reads ``models/<model>/weights`` and ``variants/<model>/<variant>``, which the pipeline's first stages make.

    Parameters
    ----------
    model : str
        Its name in params.yaml.
    variant : str
        Its name.
    seeds : Sequence[int]
        Those of the study; adapters of others, left from an earlier one, are passed over.
    compute : ComputeParams
        How the model is loaded.
    benchmark : str
        Names the file of unfinished answers below ``.scratch``.
    batch : int
        Answers written at once.
    """
    slug = places.place(model)
    weights, folder = Path("models") / slug / "weights", Path("variants") / slug / variant
    device = loading.pick_device(compute.device)
    dtype = loading.pick_dtype(compute.dtype, device)
    adapters: dict[int, Path | None] = {seed: path for seed in seeds if (path := folder / f"seed-{seed}").is_dir()}
    temperature = 1.0
    if variant in UNTRAINED:
        adapters = {AS_IT_COMES: None}
    if variant == "temperature":
        fitted = folder / "temperature.json"
        if not fitted.is_file():
            raise UserError(f"{fitted}: no fitted temperature here; run `dvc repro temperature` first")
        temperature = json.loads(fitted.read_text())["temperature"]
    if not adapters:
        raise UserError(f"{folder}: no adapter here; run `dvc repro finetune` first")
    for seed, adapter in adapters.items():
        network, tokenizer = loading.load(
            weights, adapter=adapter, device=device, dtype=dtype, trust_remote_code=compute.trust_remote_code
        )
        chat, body = chatformat.chat_format(tokenizer), Body(network, temperature)
        journal = Journal(
            _scratch(model, benchmark) / f"{variant}-{seed}.jsonl",
            about=f"{cards.fingerprint(weights, adapter)} {dtype} {temperature}",
        )
        yield Variant(model, variant, seed, body, chat, Sampler(body, chat, batch, max(seed, 0), journal))


def done(model: str, variant: str, benchmark: str) -> None:
    """Drop the answers that were kept on disk, once what was measured on them is written."""
    for path in _scratch(model, benchmark).glob(f"{variant}-*.jsonl"):
        if re.fullmatch(r"-?\d+", path.stem.removeprefix(f"{variant}-")):  # not those of a variant soft-2
            path.unlink()
