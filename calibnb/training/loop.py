"""The loop: one adapter is trained, and the one with the lowest validation loss kept."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from accelerate import Accelerator
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from calibnb.errors import UserError
from calibnb.laws.params import PromptParams
from calibnb.laws.settings import TrainingSettings
from calibnb.models import chatformat, loading
from calibnb.models.operations import Operations
from calibnb.training.adapters import save_adapter, trainable_parameters, with_adapter
from calibnb.training.checkpoints import Checkpoint, Progress
from calibnb.training.curriculum import Course, course, in_background, make_examples, ordinary_share
from calibnb.training.mixture import Turn
from calibnb.training.objective import TrieLoss
from calibnb.training.packing import Batch, Example, batch
from calibnb.training.params import FinetuneParams


class Part(NamedTuple):
    """A forward pass of a step: its loss is ``loss_weight`` times the batch's plus ``kl_weight`` times KL to the base.

    ``unpacked`` counts the tokens that one row a completion would read.
    """

    calibration: bool
    batch: Batch
    loss_weight: float
    kl_weight: float
    unpacked: int


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind, besides its adapter.

    Attributes
    ----------
    log : DataFrame
        A row a step: ``step, prompts, loss, learning_rate, gradient_norm``, ``validation`` where it ran, and
        ``ordinary``, the part of the loss that ordinary examples have (0 without any).
    best_step : int
        The step whose adapter was kept, the one with the lowest validation loss.
    trainable : int
        Number of trained parameters.
    tokens, unpacked_tokens : int
        Tokens that the forward passes read, and what one row a completion would have read.
    operations : int
        Floating-point operations that training and validating took, those of a killed run's steps included.
    """

    log: pd.DataFrame
    best_step: int
    trainable: int
    tokens: int
    unpacked_tokens: int
    operations: int


@dataclass(frozen=True)
class Learner:
    """What a step needs: a model with its adapter, the loss on it, and what moves the trained ``parameters``.

    ``operations`` counts what the model does.
    """

    method: FinetuneParams
    model: PeftModel
    loss: nn.Module
    parameters: dict[str, Tensor]
    optimizer: Any
    scheduler: Any
    accelerator: Accelerator
    operations: Operations


def _accelerator(device: torch.device, dtype: torch.dtype) -> Accelerator:
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # the one that accelerate takes
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if dtype == torch.bfloat16 else "no")


def _learner(model: PeftModel, method: FinetuneParams, steps: int, accelerator: Accelerator) -> Learner:
    """Put a model with a fresh adapter under its loss and its optimiser."""
    parameters = trainable_parameters(model)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=method.learning_rate, weight_decay=method.weight_decay, fused=True
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer, math.floor(method.warmup_share * steps), steps)
    of_tries = TrieLoss(model)
    loss, optimizer = accelerator.prepare(of_tries, optimizer)
    return Learner(method, model, loss, parameters, optimizer, scheduler, accelerator, of_tries.body.operations)


def _parts_of_steps(
    examples: Iterator[Example],
    ordinary: Sequence[Example],
    method: FinetuneParams,
    accelerator: Accelerator,
    device: torch.device,
    first: int,
) -> Iterator[list[Part]]:
    """The forward passes that this process runs in each step, from step ``first`` on.

    ``examples`` begin at that step; ``ordinary`` has those of the whole run.
    """
    share, per_step = ordinary_share(method)
    part_size = math.ceil(method.prompts_per_step / method.accumulation_steps / accelerator.num_processes)

    def mine(items: Sequence[Example]) -> Sequence[Example]:
        return items[accelerator.process_index :: accelerator.num_processes]

    def unpacked(examples: Sequence[Example], draws: int) -> int:
        return sum(len(e.prompt) * draws + e.drawn_tokens for e in examples)

    for step in count(first):
        prompts = list(islice(examples, method.prompts_per_step))
        if not prompts:
            return
        group = mine(prompts)
        cut = [group[a : a + part_size] for a in range(0, len(group), part_size)]
        # Each part of the prompts counts by its share of them.
        parts = [
            Part(True, batch(c, device), (1 - share) * len(c) / len(group), 0.0, unpacked(c, method.draws_per_prompt))
            for c in cut
        ]
        mixed = mine(ordinary[step * per_step : (step + 1) * per_step])
        if mixed:
            parts.append(Part(False, batch(mixed, device), share, method.kl_to_base, unpacked(mixed, 1)))
        yield parts


def _take_step(learner: Learner, parts: Sequence[Part]) -> dict[str, float]:
    """Follow the gradient of a step's parts. Returns its row of the log."""
    accelerator, (share, _) = learner.accelerator, ordinary_share(learner.method)
    calibration_loss = ordinary_loss = 0.0
    for i, part in enumerate(parts):
        # Gradients are synchronised on the last part only.
        with nullcontext() if i == len(parts) - 1 else accelerator.no_sync(learner.loss):
            value = learner.loss(part.batch, part.loss_weight, part.kl_weight)
            accelerator.backward(value)
        if part.calibration:
            calibration_loss += float(value.detach()) / (1 - share)
        else:
            ordinary_loss += float(value.detach())
    norm = accelerator.clip_grad_norm_(learner.parameters.values(), learner.method.max_grad_norm or math.inf)
    rate = learner.scheduler.get_last_lr()[0]
    learner.optimizer.step()
    learner.scheduler.step()
    learner.optimizer.zero_grad()
    prompts = sum(part.batch.prompts for part in parts if part.calibration)
    row = {"prompts": prompts, "loss": calibration_loss, "ordinary": ordinary_loss}
    return row | {"learning_rate": rate, "gradient_norm": float(norm)}


@torch.no_grad()
def validation_loss(loss: nn.Module, batches: Sequence[Batch]) -> float:
    """Mean loss per answer over fixed batches, in nats, without dropout."""
    loss.eval()
    total = sum(float(loss(b)) * b.prompts for b in batches)
    loss.train()
    return total / sum(b.prompts for b in batches)


def _validate(learner: Learner, batches: Sequence[Batch], step: int, done: Progress) -> float:
    """The validation loss after a step; where it is the lowest so far, the parameters are kept."""
    value = validation_loss(learner.loss, batches)
    if value < done.best_loss:
        done.best_loss, done.best_step = value, step
        done.best = {name: p.detach().clone() for name, p in learner.parameters.items()}
    return value


def _restore_best(learner: Learner, done: Progress) -> None:
    if not done.best:
        rate = learner.method.learning_rate
        raise UserError(f"finetune: the validation loss is never a number; learning_rate must be lower, got {rate}")
    for name, p in learner.parameters.items():
        p.data.copy_(done.best[name])


def _run_steps(
    learner: Learner,
    seen: Course,
    bar: tqdm[list[Part]],
    seed: int,
    checkpoint: Checkpoint,
    done: Progress,
    on_validation: Callable[[int, PeftModel], None] | None,
) -> None:
    """Take the steps whose parts the ``bar`` yields; ``done`` and the checkpoint follow them."""
    validations = learner.method.validations
    validate_at = {round((i + 1) * seen.steps / validations) for i in range(validations)}
    learner.loss.train()
    for step, parts in enumerate(bar, start=done.step + 1):
        torch.manual_seed(seed * 1_000_003 + step)  # dropout depends on the step alone, so a resumed run repeats it
        before = learner.operations.count
        row = {"step": step} | _take_step(learner, parts)
        done.tokens += sum(len(part.batch.prefix) + part.batch.rows.token.numel() for part in parts)
        done.unpacked += sum(part.unpacked for part in parts)
        if step in validate_at:
            row["validation"] = _validate(learner, seen.validation, step, done)
        done.operations += learner.operations.count - before
        if step in validate_at and on_validation is not None:
            on_validation(step, learner.model)
        done.rows.append(row)
        done.step = step
        bar.set_postfix(loss=f"{row['loss']:.3f}")
        if step in validate_at and step < seen.steps and learner.accelerator.is_main_process:
            checkpoint.save(done)


def _identity(
    labels: list[str],
    method: FinetuneParams,
    prompt: PromptParams,
    ordinary: Sequence[Turn],
    seed: int,
    dtype: torch.dtype,
    head: Tensor,
) -> str:
    """What a run is known by: a hash of all that it depends on, of the weights a sum over the ``head``."""
    about: dict[str, Any] = {
        "method": method.model_dump(mode="json"),
        "prompt": prompt.model_dump(mode="json"),
        "settings": labels,
        "ordinary": [(turn.prompt, turn.answer, turn.system) for turn in ordinary],
        "seed": seed,
        "dtype": str(dtype),
        "weights": float(head.sum(dtype=torch.float64)),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def train(
    weights: Path,
    out: Path,
    settings: TrainingSettings,
    method: FinetuneParams,
    prompt: PromptParams,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    scratch: Path,
    trust_remote_code: bool = False,
    ordinary: Sequence[Turn] = (),
    on_validation: Callable[[int, PeftModel], None] | None = None,
) -> Trained:
    """Train one adapter and keep the one with the lowest validation loss.

    Validation prompts are the fixed validation settings on their grid values, scored with soft paths whatever the
    method, so that the methods' curves share a scale; the format control is validated on its own task (other settings'
    answers), or choosing its best step by calibration would leak calibration into the control.

    Parameters
    ----------
    weights : Path
        Folder of the base model.
    out : Path
        Folder for the adapter; it appears when the run is complete.
    settings : TrainingSettings
        What may be seen, and nothing else of the study.
    method : FinetuneParams
        What is trained, and how.
    prompt : PromptParams
        How settings are worded.
    seed : int
        Seed of the order, the draws, the adapter and its dropout.
    device, dtype : torch.device, torch.dtype
        Where and in what the model computes.
    scratch : Path
        Folder for the checkpoint; a killed run resumes from it, a finished one removes it.
    trust_remote_code : bool
        Whether code that comes with the model may run.
    ordinary : Sequence[Turn]
        What a method with a mixture mixes in.
    on_validation : Callable[[int, PeftModel], None] or None
        Called with the step and the model after each validation.

    Returns
    -------
    Trained
        The log and what it cost.
    """
    if (method.mixture is None) != (not ordinary):
        raise ValueError("ordinary examples go with a mixture")
    torch.manual_seed(seed)
    base, tokenizer = loading.load(weights, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    chat = chatformat.chat_format(tokenizer)
    model = with_adapter(base, method)
    accelerator = _accelerator(device, dtype)
    main = accelerator.is_main_process
    seen = course(settings, method, prompt, ordinary, chat, seed, device, show=main)
    learner = _learner(model, method, seen.steps, accelerator)
    trial = learner.operations.count

    labels = [s.label for s in (*seen.order, *settings.validation)]
    run = _identity(labels, method, prompt, ordinary, seed, dtype, base.get_output_embeddings().weight)
    checkpoint = Checkpoint(scratch / "checkpoint.pt", run, learner.parameters, learner.optimizer, learner.scheduler)
    done = checkpoint.resume(device)
    place = done.step * method.prompts_per_step
    examples = make_examples(seen.order, method, prompt, chat, seed, method.estimator, place)
    parts = in_background(_parts_of_steps(examples, seen.ordinary, method, accelerator, device, done.step))
    bar = tqdm(parts, f"training {out.parent.name}", seen.steps, initial=done.step, unit="step", disable=not main)
    # Under autocast the products are bfloat16 anyway; peft's own cast to float32 and back only costs time.
    with disable_input_dtype_casting(model, active=dtype == torch.bfloat16):
        _run_steps(learner, seen, bar, seed, checkpoint, done, on_validation)

    _restore_best(learner, done)
    if main:
        save_adapter(model, out)
        shutil.rmtree(scratch, ignore_errors=True)
    trainable = sum(p.numel() for p in learner.parameters.values())
    operations = trial + done.operations
    return Trained(pd.DataFrame(done.rows), done.best_step, trainable, done.tokens, done.unpacked, operations)
