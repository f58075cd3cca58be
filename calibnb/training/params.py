"""Blocks of params.yaml on training: the methods, their mixtures and adapters, and the fitted temperature."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from calibnb.blocks import Block, Count, Positive, Share, line_of_text, refusal
from calibnb.errors import UserError
from calibnb.laws.grids import Discretisation
from calibnb.laws.params import Bins, Decimals, SpaceParams
from calibnb.laws.telling import Told
from calibnb.yaml_files import decode

# Variants that nothing is trained for: the model as it comes, and at a fitted temperature.
TEMPERATURE = "temperature"
UNTRAINED = ("base", TEMPERATURE)
SELF = "self"  # a mixture's source: the model itself

# Of the stage `items`: what training may see, and what is trained and how.
TRAINING_SETTINGS = Path("items/training/settings.json")
TRAINED = Path("items/methods/methods.json")

# The block of `finetune` that is no method: what methods have where they say nothing else.
DEFAULTS = "defaults"


def _method_name(raw: Any) -> Any:
    # It is part of stage names and command lines, and files that `merge` makes of this one spell it without quotes.
    name = isinstance(raw, str) and re.fullmatch(r"[a-z0-9][a-z0-9_-]*", raw)
    if not name or raw in (*UNTRAINED, DEFAULTS) or not _reads_as_text(raw):
        names = f"{', '.join(UNTRAINED)} and {DEFAULTS}"
        raise refusal(f'a name of lower-case letters, digits, "_" and "-" that YAML reads as text, not {names}', raw)
    return raw


def _reads_as_text(raw: str) -> bool:
    try:
        return bool(decode(raw, "") == raw)
    except UserError:
        return False


MethodName = Annotated[str, BeforeValidator(_method_name)]


class MixtureParams(Block):
    """Ordinary examples beside calibration: see `mixture`."""

    source: Annotated[str, BeforeValidator(line_of_text)]
    share: Share
    prompts_per_step: Count


class FinetuneParams(Block):
    """One method of fine-tuning; params.yaml says what each key does.

    Its keys are flat: a method takes those that it does not give from the defaults, by a merge of YAML, in which blocks
    would be shared and a change of one method's would be a change of all.
    """

    estimator: Literal["paths", "samples", "trie"]
    draws: Literal["iid", "stratified"]
    draws_per_prompt: Count
    completions: Literal["own", "other"]
    parameters: Literal["grid", "continuous"]
    family_weights: Literal["settings", "equal"]
    told: Told
    discretisation: Discretisation
    num_decimals: Decimals
    max_bins: Bins
    average: Literal["tokens", "path"]
    epochs: Positive
    prompts_per_step: Count
    accumulation_steps: Count
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_share: Share
    max_grad_norm: Positive | None
    validations: Count
    validation_settings: Count
    mixture: MixtureParams | None
    kl_to_base: Annotated[float, Field(ge=0)]
    lora_rank: Annotated[int, Field(ge=1, le=1024)]
    lora_alpha: Positive
    lora_dropout: Share
    lora_targets: Literal["attention", "all-linear"]

    @property
    def space(self) -> SpaceParams:
        """The answers that a target spreads over."""
        return SpaceParams(discretisation=self.discretisation, num_decimals=self.num_decimals, max_bins=self.max_bins)

    def problems(self) -> Iterator[str]:
        """What is wrong between keys, as ``key: must be ..., got ...``."""
        if self.accumulation_steps > self.prompts_per_step:
            most = f"prompts_per_step = {self.prompts_per_step}"
            yield f"accumulation_steps: must be <= {most}, got {self.accumulation_steps}"
        if self.mixture is None and self.kl_to_base:
            yield f"kl_to_base: must be 0 without a mixture, whose prompts it needs, got {self.kl_to_base}"
        if self.estimator == "trie" and self.average == "path":
            yield "average: must be tokens where estimator is trie, which has no paths, got path"
        if self.mixture is not None and not (self.kl_to_base or self.mixture.share):
            yield f"mixture.share: must be > 0 where kl_to_base is 0, got {self.mixture.share}"


Methods = dict[Literal["defaults"] | MethodName, FinetuneParams]


def write_methods(methods: Mapping[str, FinetuneParams], path: Path) -> None:
    """Keep what is trained and how, for pages that tell of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {name: how.model_dump(mode="json") for name, how in methods.items()}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_methods(path: Path) -> dict[str, FinetuneParams]:
    """What `write_methods` has kept, in its order."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: FinetuneParams.model_validate(how) for name, how in found.items()}


class TemperatureParams(Block):
    """The baseline of one scalar: on whose loss it is fitted, and on how many train settings."""

    method: MethodName
    settings: Count


class OrdinaryParams(Block):
    """The model's own answers to ordinary prompts, which `mixture.source: self` mixes in."""

    draws: Count
    max_new_tokens: Count
    batch: Count
