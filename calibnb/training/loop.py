"""The loop: one adapter is trained, and the one with the lowest validation loss kept."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from accelerate import Accelerator
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import nn
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from calibnb.errors import UserError
from calibnb.laws.grids import FamilyGrid
from calibnb.laws.params import PromptParams
from calibnb.laws.specs import Spec
from calibnb.models import chatformat, loading
from calibnb.training.adapters import save_adapter, trainable_parameters, with_adapter
from calibnb.training.checkpoints import Checkpoint
from calibnb.training.curriculum import in_background, make_examples, ordinary_order, ordinary_share, prompts_of_run
from calibnb.training.mixture import Turn
from calibnb.training.objective import TrieLoss
from calibnb.training.packing import Batch, Example, batch, ordinary_example
from calibnb.training.params import FinetuneParams


class Part(NamedTuple):
    """A forward pass of a step: its loss is ``own`` times that of the batch plus ``near`` times the KL to the base.

    ``unpacked`` counts the tokens that one row a completion would read.
    """

    calibration: bool
    batch: Batch
    own: float
    near: float
    unpacked: int


def _parts_of_steps(
    order: Sequence[Spec],
    mixed: Sequence[Example],
    method: FinetuneParams,
    prompt: PromptParams,
    chat: chatformat.ChatFormat,
    seed: int,
    accelerator: Accelerator,
    device: torch.device,
    first: int,
) -> Iterator[list[Part]]:
    """The forward passes that this process runs in each step, from step ``first`` on.

    ``order`` has the settings and ``mixed`` the ordinary examples of the whole run.
    """
    share, beside = ordinary_share(method)
    group_size = method.prompts_per_step
    part_size = math.ceil(group_size / method.accumulation_steps / accelerator.num_processes)

    def mine(items: Sequence[Any]) -> Sequence[Any]:
        return items[accelerator.process_index :: accelerator.num_processes]

    def cost(examples: Sequence[Example], draws: int) -> int:
        return sum(len(e.prompt) * draws + e.drawn_tokens for e in examples)

    examples = make_examples(order, method, prompt, chat, seed, method.estimator, first * group_size)
    for step in range(first, math.ceil(len(order) / group_size)):
        group = mine(list(islice(examples, group_size)))
        cut = [group[a : a + part_size] for a in range(0, len(group), part_size)]
        # Each part of the prompts counts by its share of them.
        parts = [
            Part(True, batch(c, device), (1 - share) * len(c) / len(group), 0.0, cost(c, method.draws_per_prompt))
            for c in cut
        ]
        aside = mine(mixed[step * beside : (step + 1) * beside])
        if aside:
            parts.append(Part(False, batch(aside, device), share, method.kl_to_base, cost(aside, 1)))
        yield parts


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind, besides its adapter.

    Attributes:
        log: a row a step: ``step, prompts, loss, learning_rate, gradient_norm``, ``validation`` where it ran, and
            ``ordinary``, the part of the loss that ordinary examples have (0 without any).
        best_step: the step whose adapter was kept, the one with the lowest validation loss.
        trainable: number of trained parameters.
        tokens: tokens that the forward passes read, and what one row a completion would have read.
    """

    log: pd.DataFrame
    best_step: int
    trainable: int
    tokens: int
    unpacked_tokens: int


@torch.no_grad()
def validation_loss(loss: nn.Module, batches: Sequence[Batch]) -> float:
    """Mean loss per answer over fixed batches, in nats, without dropout."""
    loss.eval()
    total = sum(float(loss(b)) * b.prompts for b in batches)
    loss.train()
    return total / sum(b.prompts for b in batches)


def train(
    weights: Path,
    out: Path,
    settings: Sequence[Spec],
    families: dict[str, FamilyGrid],
    method: FinetuneParams,
    prompt: PromptParams,
    *,
    significant_digits: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    scratch: Path,
    trust_remote_code: bool = False,
    ordinary: Sequence[Turn] = (),
    on_validation: Callable[[int, PeftModel], None] | None = None,
) -> Trained:
    """Train one adapter and keep the one with the lowest validation loss.

    Args:
        weights: folder of the base model.
        out: folder for the adapter; it appears when the run is complete.
        settings: specs of splits ``train`` and ``validation``; others are refused.
        families: the grids, whose train ranges continuous parameters are drawn from.
        significant_digits: of printed parameters.
        scratch: folder for the checkpoint; a killed run resumes from it, a finished one removes it.
        ordinary: what a method with a mixture mixes in.
        on_validation: called with the step and the model after each validation.

    Returns:
        The log and what it cost. Validation prompts are the fixed validation settings on their grid values,
        scored with soft paths whatever the method, so that the methods' curves share a scale; the format
        control is validated on its own task (other settings' answers), or choosing its best step by
        calibration would leak calibration into the control.
    """
    splits = {s.split for s in settings}
    if not splits <= {"train", "validation"}:
        raise ValueError(f"training may see train and validation settings only, got {sorted(splits)}")
    if (method.mixture is None) != (not ordinary):
        raise ValueError("ordinary examples go with a mixture")
    train_settings = [s for s in settings if s.split == "train"]
    validation_settings = [s for s in settings if s.split == "validation"]

    torch.manual_seed(seed)
    base, tokenizer = loading.load(weights, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    chat = chatformat.chat_format(tokenizer)
    model = with_adapter(base, method)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # the one that accelerate takes
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if dtype == torch.bfloat16 else "no",
    )
    share, beside = ordinary_share(method)
    parameters = trainable_parameters(model)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=method.learning_rate, weight_decay=method.weight_decay, fused=True
    )
    order = prompts_of_run(train_settings, validation_settings, families, method, significant_digits, seed)
    steps = math.ceil(len(order) / method.prompts_per_step)
    drawn = ordinary_order(steps * beside, len(ordinary), seed) if ordinary else []
    # All are read, so that one that cannot be trained on is found here; those of this run are kept.
    wanted = set(drawn)
    read = tqdm(ordinary, "ordinary examples", leave=False, disable=not ordinary or not accelerator.is_main_process)
    made = ((i, ordinary_example(turn, chat)) for i, turn in enumerate(read))
    examples = {i: one for i, one in made if i in wanted}
    scheduler = get_cosine_schedule_with_warmup(optimizer, math.floor(method.warmup_share * steps), steps)
    bare = TrieLoss(model)
    loss, optimizer = accelerator.prepare(bare, optimizer)

    validation_examples = list(make_examples(validation_settings, method, prompt, chat, seed + 1, "paths"))
    validation_batches = [
        batch(validation_examples[a : a + 16], device) for a in range(0, len(validation_examples), 16)
    ]
    validate_at = {round((i + 1) * steps / method.validations) for i in range(method.validations)}

    about: dict[str, Any] = {
        "method": method.model_dump(mode="json"),
        "prompt": prompt.model_dump(mode="json"),
        "settings": [s.label for s in (*order, *validation_settings)],
        "ordinary": [(turn.prompt, turn.answer, turn.system) for turn in ordinary],
        "seed": seed,
        "dtype": str(dtype),
        "weights": float(bare.body.head.weight.double().sum()),
    }
    run = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    checkpoint = Checkpoint(scratch / "checkpoint.pt", run, parameters, optimizer, scheduler)
    done = checkpoint.resume(device)
    mixed = [examples[i] for i in drawn]
    parts_of_steps = _parts_of_steps(order, mixed, method, prompt, chat, seed, accelerator, device, done.step)

    # Under autocast the products are bfloat16 anyway; peft's own cast to float32 and back only costs time.
    stack = ExitStack()
    stack.enter_context(disable_input_dtype_casting(model, active=dtype == torch.bfloat16))
    loss.train()
    bar = tqdm(
        total=steps,
        initial=done.step,
        desc=f"training {out.parent.name}",
        unit="step",
        disable=not accelerator.is_main_process,
    )
    for step, parts in enumerate(in_background(parts_of_steps), start=done.step + 1):
        torch.manual_seed(seed * 1_000_003 + step)  # dropout depends on the step alone, so a resumed run repeats it
        total = aside = 0.0
        for i, p in enumerate(parts):
            # Gradients are synchronised on the last part only.
            with nullcontext() if i == len(parts) - 1 else accelerator.no_sync(loss):
                value = loss(p.batch, p.own, p.near)
                accelerator.backward(value)
            if p.calibration:
                total += float(value.detach()) / (1 - share)
            else:
                aside += float(value.detach())
            done.tokens += len(p.batch.prefix) + p.batch.rows.token.numel()
            done.unpacked += p.unpacked
        prompts = sum(p.batch.prompts for p in parts if p.calibration)
        norm = accelerator.clip_grad_norm_(parameters.values(), method.max_grad_norm or math.inf)
        rate = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        row = {"step": step, "prompts": prompts, "loss": total, "ordinary": aside}
        row |= {"learning_rate": rate, "gradient_norm": float(norm)}
        if step in validate_at:
            row["validation"] = validation_loss(loss, validation_batches)
            if row["validation"] < done.best_loss:
                done.best_loss, done.best_step = row["validation"], step
                done.best = {n: p.detach().clone() for n, p in parameters.items()}
            if on_validation is not None:
                on_validation(step, model)
        done.rows.append(row)
        done.step = step
        bar.update()
        bar.set_postfix(loss=f"{total:.3f}")
        if step in validate_at and step < steps and accelerator.is_main_process:
            checkpoint.save(done)
    bar.close()
    stack.close()

    if not done.best:
        raise UserError(
            f"finetune: the validation loss is never a number; learning_rate must be lower, got {method.learning_rate}"
        )
    for name, p in parameters.items():
        p.data.copy_(done.best[name])
    if accelerator.is_main_process:
        save_adapter(model, out)
        shutil.rmtree(scratch, ignore_errors=True)
    trainable = sum(p.numel() for p in parameters.values())
    return Trained(pd.DataFrame(done.rows), done.best_step, trainable, done.tokens, done.unpacked)
