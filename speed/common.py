"""What the performance scripts share: the model, a few settings, and a clock."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from calibnb.errors import UserError
from calibnb.laws import specs
from calibnb.laws.settings import TrainingSettings
from calibnb.laws.specs import Spec
from calibnb.models import chatformat, loading
from calibnb.pipeline import params as pipeline_params
from calibnb.training import curriculum, packing
from calibnb.trees.attention import Body
from calibnb.trees.number_search import NumberTokens, number_tokens


@dataclass
class Bench:
    params: pipeline_params.Params
    model: torch.nn.Module
    tokenizer: object
    chat: chatformat.ChatFormat
    body: Body
    numbers: NumberTokens
    settings: list[Spec]
    device: torch.device
    dtype: torch.dtype

    def prompt(self, spec: Spec) -> list[int]:
        return self.chat.prompt_ids(specs.prompt(spec, self.params.prompt.template, self.params.prompt.parameter_names))

    def examples(self, method: str, count: int) -> list[packing.Example]:
        p = self.params
        seen = TrainingSettings.of(p.families, p.data.validation_share, p.data.significant_digits)
        order = curriculum.prompts_of_run(seen, p.finetune[method], seed=11)
        made = curriculum.make_examples(
            order, p.finetune[method], p.prompt, self.chat, 11, p.finetune[method].estimator
        )
        return list(islice(made, count))


def parser(text: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=text)
    p.add_argument("--weights", type=Path, default=Path("models/qwen2.5-coder-0.5b/weights"))
    trained = Path("variants/qwen2.5-coder-0.5b/soft/seed-11")
    p.add_argument("--adapter", type=Path, default=trained, help="adapter folder")
    return p


def load(weights: Path, adapter: Path | None) -> Bench:
    torch.manual_seed(11)
    p = pipeline_params.load("params.yaml")
    device = loading.pick_device(p.compute.device)
    dtype = loading.pick_dtype(p.compute.dtype, device)
    try:
        model, tokenizer = loading.load(weights, adapter=adapter, device=device, dtype=dtype)
    except UserError as error:
        raise SystemExit(f"{error}; `make bench` makes both first") from None
    settings = specs.build(p.families, p.data.validation_share, p.data.significant_digits)
    chat = chatformat.chat_format(tokenizer)
    numbers = number_tokens(tokenizer.get_vocab())
    return Bench(p, model, tokenizer, chat, Body(model), numbers, settings, device, dtype)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The best wall time of a few runs, after one that warms up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
