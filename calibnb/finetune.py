"""Calibration fine-tuning: low-rank adapters trained on draws from laws.

One prompt of a step is one setting with a number of draws. The draws are merged into a trie and packed with
the step's other prompts into a few rows, so what one row a completion would encode hundreds of times is
encoded once. The loss is a weighted sum of next-token cross-entropies (:func:`calibnb.trie.objective`); the
estimators differ only in which tokens are scored and with which weight.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from tqdm.auto import tqdm
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup
from transformers.pytorch_utils import Conv1D

from calibnb import laws, models, specs
from calibnb.blocks import FamilyGrid
from calibnb.errors import UserError, room
from calibnb.mixture import Turn
from calibnb.params import FinetuneParams, PromptParams
from calibnb.specs import Spec
from calibnb.tree import Body, Rows, head_logits, pack, segment, shared_prefix
from calibnb.trie import Ints, Objective, Trie, ancestors_of, build, draw, objective

TOWERS = re.compile(r"vision|visual|image|audio|speech")
ATTENTION = re.compile(r"(attn|attention)[^.]*\.")  # a module of that name above the layer
ROW_TOKENS = 256  # short rows: attention is quadratic in them, and first-fit packing leaves little padding


# --------------------------------------------------------------------------------------------------------------
# What one prompt contributes


@dataclass(frozen=True)
class Example:
    """One prompt with its trie of answers and the loss on it.

    ``drawn_tokens`` counts the tokens of all drawn completions, what one row a completion would read.
    """

    prompt: list[int]
    trie: Trie
    loss: Objective
    drawn_tokens: int


def example(
    prompt: list[int], law: laws.AnswerLaw, counts: Ints, chat: models.ChatFormat, estimator: str, average: str
) -> Example:
    """Tokenise what the estimator needs and state its loss.

    Hard samples need the drawn strings only; soft paths need the whole trie, because the target at a prefix
    is spread over all strings that share it.
    """
    drawn = np.flatnonzero(counts) if estimator == "samples" else np.arange(len(counts))
    trie = build(chat.answer_ids([law.strings[i] for i in drawn]), law.probabilities[drawn], chat.end_id)
    drawn_tokens = int(((trie.path >= 0).sum(axis=1) * counts[drawn]).sum())
    return Example(prompt, trie, objective(trie, counts[drawn], estimator, average), drawn_tokens)


def ordinary_example(turn: Turn, chat: models.ChatFormat) -> Example:
    """A question with its one answer, a trie of a single path; its loss is the mean over the answer's tokens."""
    prompt, answer = turn.ids(chat)
    trie = build([answer], [1.0], chat.end_id)
    return Example(prompt, trie, objective(trie, [1], "samples", "path"), trie.path.size)


# --------------------------------------------------------------------------------------------------------------
# What one step sees


@dataclass(frozen=True)
class Batch:
    """Packed prompts and the entries of their losses.

    Attributes:
        prefix: tokens that all prompts share, encoded once.
        rows: the packed rows.
        scored: ``[r]`` flat indices into the rows at which next tokens are scored.
        entry: ``[k]`` index into ``scored`` of each loss entry; ``token`` and ``weight`` as in Objective.
        entropy: the loss of a perfect model.
        prompts: number of prompts.
    """

    prefix: list[int]
    rows: Rows
    scored: Tensor
    entry: Tensor
    token: Tensor
    weight: Tensor
    entropy: float
    prompts: int


def batch(examples: Sequence[Example], device: torch.device, row_tokens: int = ROW_TOKENS) -> Batch:
    """Pack examples; losses are averaged over the prompts."""
    shared = shared_prefix([e.prompt for e in examples])
    pieces = [segment(e.prompt, shared, e.trie, ancestors_of(e.trie, np.unique(e.loss.node))) for e in examples]
    rows = pack(pieces, row_tokens, device)
    at = np.concatenate([s + p.index[e.loss.node] for s, p, e in zip(rows.start, pieces, examples, strict=True)])
    scored, entry = np.unique(at, return_inverse=True)
    weight = np.concatenate([e.loss.weight for e in examples]) / len(examples)
    return Batch(
        prefix=examples[0].prompt[:shared],
        rows=rows,
        scored=torch.from_numpy(scored).to(device),
        entry=torch.from_numpy(entry).to(device),
        token=torch.from_numpy(np.concatenate([e.loss.token for e in examples])).to(device),
        weight=torch.from_numpy(weight).float().to(device),
        entropy=sum(e.loss.entropy for e in examples) / len(examples),
        prompts=len(examples),
    )


class _WeightedCrossEntropy(torch.autograd.Function):
    """``sum_e weight[e] * -log softmax(hidden @ head^T)[entry[e], token[e]]`` without keeping the logits.

    With ``reference [r, h]`` and ``pull [r]`` also ``sum_i pull[i] * KL(p_i || q_i)``, where ``q_i`` is the law that
    ``hidden[i]`` gives to the next token and ``p_i`` the one that ``reference[i]`` gives, which has no gradient.

    The head is frozen, so the gradient for the hidden states can be made while the logits of a chunk of
    rows are at hand, and the ``[r, v]`` logits (gigabytes for a large vocabulary) never exist at once.
    The softmax and the sums are float32 whatever the dtype of the matrix products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        head32: Tensor,
        bias: Tensor | None,
        entry: Tensor,
        token: Tensor,
        weight: Tensor,
        chunk: int,
        reference: Tensor | None,
        pull: Tensor,
    ) -> Tensor:
        loss = hidden.new_zeros((), dtype=torch.float64)
        gradient = torch.empty_like(hidden)
        order = torch.argsort(entry, stable=True)
        entry, token, weight = entry[order], token[order], weight[order]
        starts = torch.searchsorted(entry, torch.arange(0, len(hidden) + chunk, chunk, device=entry.device)).tolist()
        for i, a in enumerate(range(0, len(hidden), chunk)):
            here = slice(starts[i], starts[i + 1])
            row, tok, w = entry[here] - a, token[here], weight[here]
            h = hidden[a : a + chunk]
            logp = torch.log_softmax(head_logits(h, head32, bias), dim=-1)
            loss -= (w * logp[row, tok]).double().sum()
            per_row = torch.zeros(len(h), dtype=torch.float32, device=h.device).index_add_(0, row, w)
            near = None
            if reference is not None:
                of_base = torch.log_softmax(head_logits(reference[a : a + chunk], head32, bias), dim=-1)
                near = of_base.exp() * pull[a : a + chunk, None]
                loss += (near * (of_base - logp)).double().sum()
                per_row += pull[a : a + chunk]
            # d loss / d logits = (sum of the row's weights) * softmax - weights at the scored tokens
            slope = logp.exp_().mul_(per_row[:, None])
            if near is not None:
                slope -= near
            slope.index_put_((row, tok), -w, accumulate=True)
            gradient[a : a + chunk] = slope.to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return loss.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), *[None] * 9


class TrieLoss(nn.Module):
    """Mean loss per answer of a batch, in nats: KL(target || model) up to the estimator's noise.

    A module, so that accelerate can wrap it: mixed precision and gradient synchronisation follow its forward.
    With ``near > 0`` it is ``own`` times that plus ``near`` times KL(base || adapter) of the next token, averaged
    as the loss is; the base is the model with its adapter switched off.
    """

    def __init__(self, model: nn.Module, chunk: int = 128) -> None:
        super().__init__()
        self.model = model
        self.body = Body(model)
        self.chunk = chunk

    def forward(self, batch: Batch, own: float = 1.0, near: float = 0.0) -> Tensor:
        head = self.body.head
        reference = None
        if near:
            with torch.no_grad(), self.model.disable_adapter():  # type: ignore[operator]
                reference = self.body.rows(batch.rows, batch.prefix)[batch.scored].to(head.weight.dtype)
        hidden = self.body.rows(batch.rows, batch.prefix)[batch.scored].to(head.weight.dtype)
        per_row = hidden.new_zeros(len(hidden), dtype=torch.float32).index_add_(0, batch.entry, batch.weight)
        loss: Tensor = _WeightedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, self.body.head32, head.bias,
            batch.entry, batch.token, own * batch.weight, self.chunk, reference, near * per_row,
        )  # fmt: skip
        return loss - own * batch.entropy


# --------------------------------------------------------------------------------------------------------------
# The order of prompts


def schedule(settings: Sequence[Spec], family_weights: str, rng: np.random.Generator) -> list[Spec]:
    """One epoch: round robin over the families, their settings and the families shuffled anew.

    With ``settings`` each setting occurs once, so families keep unequal weight (12 to 125 settings), as in
    the paper; with ``equal`` the small families are repeated and the large ones cut, the total being the same.
    """
    families: dict[str, list[Spec]] = {}
    for s in settings:
        families.setdefault(s.family, []).append(s)
    shuffled = {f: [members[i] for i in rng.permutation(len(members))] for f, members in families.items()}
    if family_weights == "equal":
        share = math.ceil(len(settings) / len(families))
        shuffled = {f: (m * math.ceil(share / len(m)))[:share] for f, m in shuffled.items()}
    order: list[Spec] = []
    for turn in range(max(len(m) for m in shuffled.values())):
        present = [f for f, m in shuffled.items() if turn < len(m)]
        order += [shuffled[present[i]][turn] for i in rng.permutation(len(present))]
    return order[: len(settings)]


def prompts_of_run(
    settings: Sequence[Spec],
    validation: Sequence[Spec],
    families: dict[str, FamilyGrid],
    method: FinetuneParams,
    significant_digits: int,
    seed: int,
) -> list[Spec]:
    """The settings of a whole run, in order.

    With continuous parameters each place gets a fresh draw of its family; those that happen to be a
    validation setting or a point of the family's unseen grid are drawn again.
    """
    total = math.ceil(method.epochs * len(settings))
    order: list[Spec] = []
    for epoch in range(math.ceil(method.epochs)):
        order += schedule(settings, method.family_weights, np.random.default_rng([seed, 1, epoch]))
    order = order[:total]
    if method.parameters == "grid":
        return order
    rng = np.random.default_rng([seed, 2])
    avoid = {s.parameters for s in validation} | {
        specs.of_point(family, point, "unseen", significant_digits).parameters
        for family in {s.family for s in order}
        for point in specs.grid_points(families[family].unseen or {})
        if point
    }
    return [specs.continuous(families, s.family, rng, significant_digits, avoid) for s in order]


def partners(order: Sequence[Spec], seed: int) -> list[Spec]:
    """For the format control: whose law each prompt's draws come from, a fixed-point-free shuffle."""
    shift = np.random.default_rng([seed, 3]).permutation(len(order))
    partner: list[Spec] = [order[0]] * len(order)
    for a, b in zip(shift, np.roll(shift, 1), strict=True):
        partner[a] = order[b]
    return partner


def make_examples(
    order: Sequence[Spec],
    method: FinetuneParams,
    prompt: PromptParams,
    chat: models.ChatFormat,
    seed: int,
    estimator: str,
    first: int = 0,
) -> Iterator[Example]:
    """Examples of a run from place ``first`` on; draws depend on seed and place only, so a run can be resumed."""
    sources = partners(order, seed) if method.completions == "other" else order
    for place in range(first, len(order)):
        spec, source = order[place], sources[place]
        law = laws.of_spec(source, method.space)
        rng = np.random.default_rng([seed, 4, place])
        counts = draw(law.probabilities, method.draws_per_prompt, rng, stratified=method.draws == "stratified")
        ids = chat.prompt_ids(specs.prompt(spec, prompt.template, prompt.parameter_names))
        yield example(ids, law, counts, chat, estimator, method.average)


def ordinary_order(count: int, available: int, seed: int) -> list[int]:
    """Which of the ordinary examples come in a run, ``count`` in all: each once before any comes again."""
    rounds = [np.random.default_rng([seed, 5, i]).permutation(available) for i in range(math.ceil(count / available))]
    return [int(i) for i in np.concatenate([*rounds, np.empty(0, int)])[:count]]


def _ordinary(method: FinetuneParams) -> tuple[float, int]:
    """The weight of ordinary examples in the loss and how many a step has, 0 and 0 without a mixture."""
    return (method.mixture.share, method.mixture.prompts_per_step) if method.mixture else (0.0, 0)


def _in_background(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, each next one prepared in a thread while the last is in use."""
    done = object()
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, items, done)
        while (item := ahead.result()) is not done:
            ahead = pool.submit(next, items, done)
            yield item


# --------------------------------------------------------------------------------------------------------------
# The loop


class Part(NamedTuple):
    """A forward pass of a step: its loss is ``own`` times that of the batch plus ``near`` times the KL to the base.

    ``unpacked`` counts the tokens that one row a completion would read.
    """

    calibration: bool
    batch: Batch
    own: float
    near: float
    unpacked: int


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: steps done.
        rows: the log so far.
        tokens, unpacked: as in :class:`Trained`.
        best_loss, best_step, best: lowest validation loss, its step and the trained parameters then.
    """

    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0
    unpacked: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A run on disk, so that a killed one resumes.

    Attributes:
        path: the file; it appears at once or not at all, and what a full disk cut off is removed.
        run: identifies the run: a checkpoint of other settings, prompts or weights is left aside, not continued.
        parameters: the trained parameters by name; they, ``optimizer`` and ``scheduler`` are saved and set.
    """

    path: Path
    run: str
    parameters: dict[str, Tensor]
    optimizer: Any
    scheduler: Any

    def resume(self, device: torch.device) -> Progress:
        """Where the run stopped, or its beginning."""
        if not self.path.exists():
            return Progress()
        state = torch.load(self.path, weights_only=True, map_location=device)
        if state["run"] != self.run:
            return Progress()
        for name, p in self.parameters.items():
            p.data.copy_(state["adapter"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return Progress(**{f.name: state[f.name] for f in fields(Progress)})

    def save(self, progress: Progress) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        state = {
            "run": self.run,
            "adapter": {n: p.detach() for n, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            **vars(progress),
        }
        try:
            # Given a path, torch writes by itself and does not say why it could not.
            with room(self.path, _tensor_bytes(state)), new.open("wb") as file:
                torch.save(state, file)
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)


def _tensor_bytes(state: Any) -> int:
    """Bytes of all tensors in nested dictionaries and lists."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(_tensor_bytes, state.values()))
    return sum(map(_tensor_bytes, state)) if isinstance(state, list | tuple) else 0


def _parts_of_steps(
    order: Sequence[Spec],
    mixed: Sequence[Example],
    method: FinetuneParams,
    prompt: PromptParams,
    chat: models.ChatFormat,
    seed: int,
    accelerator: Accelerator,
    device: torch.device,
    first: int,
) -> Iterator[list[Part]]:
    """The forward passes that this process runs in each step, from step ``first`` on.

    ``order`` has the settings and ``mixed`` the ordinary examples of the whole run.
    """
    share, beside = _ordinary(method)
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


def linear_layers(model: PreTrainedModel) -> tuple[list[str], list[str]]:
    """Names of all that multiplies hidden states by a matrix in the decoder: layers, and matrices of other modules.

    The matrices are the stacked weights of experts and the weights of routers, which are no layers of their own.
    Left out are the head, embeddings, and the towers of multimodal models, which see no number.
    """
    inside = set(model.get_decoder().modules()) - {model.get_output_embeddings()}
    layers: list[str] = []
    matrices: list[str] = []
    for name, part in model.named_modules():
        if part not in inside or TOWERS.search(name):
            continue
        if isinstance(part, (nn.Linear, Conv1D)):
            layers.append(name)
        elif not isinstance(part, (nn.Embedding, _ConvNd)) and "Norm" not in type(part).__name__:
            own = part.named_parameters(recurse=False)
            matrices += [f"{name}.{key}" for key, p in own if p.ndim >= 2 and not key.endswith("bias")]
    return layers, matrices


def with_adapter(model: PreTrainedModel, method: FinetuneParams) -> PeftModel:
    """Put a fresh float32 low-rank adapter on all linear layers of the decoder, or on those inside its attention.

    Experts are adapted each by itself; their dense updates exist during a step, so they take memory like the weights.
    Never on embeddings or head: tied weights stay tied, the loss kernel may take the head as frozen, and every
    engine that scores with the adapter agrees (vllm-project/vllm#51594).

    Raises:
        UserError: there is nothing to adapt, something that peft cannot, or dropout where there are experts.
    """
    layers, matrices = linear_layers(model)
    if method.lora.targets == "attention":
        layers, matrices = ([n for n in names if ATTENTION.search(n)] for names in (layers, matrices))
    kind = model.config.model_type
    if not layers:
        raise UserError(f"lora.targets: {kind} has no linear layers for {method.lora.targets}; allowed: other models")
    if matrices and method.lora.dropout:
        raise UserError(
            f"lora.dropout: must be 0 for {kind}, whose {matrices[0]} is no layer that could drop its input, "
            f"got {method.lora.dropout}"
        )
    config = LoraConfig(
        r=method.lora.rank,
        lora_alpha=method.lora.alpha,  # type: ignore[arg-type]  # peft multiplies by alpha / r, a fraction is fine
        lora_dropout=method.lora.dropout,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=layers,
        target_parameters=matrices or None,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in layers),
    )
    # peft renames targets, and what it reads back, of architectures whose experts were layers in older transformers.
    try:
        made = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"lora.targets: peft cannot put an adapter on {kind}: {error}") from error
    read: Any = set_peft_model_state_dict(made, get_peft_model_state_dict(made, save_embedding_layers=False))
    lost = {name for name in read.missing_keys if made.base_model.prefix in name}
    has = _adapted(made)
    if missing := [name for name in (*layers, *matrices) if name not in has] or sorted(lost):
        raise UserError(
            f"lora.targets: peft cannot adapt {missing[0]} of {kind} and read it back, nor {len(missing) - 1} others, "
            f"got {method.lora.targets}; allowed: other targets or models"
        )
    return made


def _adapted(model: PeftModel) -> set[str]:
    """Names, as in :func:`linear_layers`, of what has an adapter."""
    found = set()
    for name, part in model.get_base_model().named_modules():
        if isinstance(part, LoraLayer):
            # Several matrices of one module are wrapped one around the other.
            bare = name.replace(".base_layer", "")
            found.add(f"{bare}.{part.parameter_name}" if isinstance(part, ParamWrapper) else bare)
    return found


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


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
    base, tokenizer = models.load(weights, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    chat = models.chat_format(tokenizer)
    model = with_adapter(base, method)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # the one that accelerate takes
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if dtype == torch.bfloat16 else "no",
    )
    share, beside = _ordinary(method)
    parameters = _trainable(model)
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
    for step, parts in enumerate(_in_background(parts_of_steps), start=done.step + 1):
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


def save_adapter(model: PeftModel, out: Path) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, the folder appearing at once."""
    temporary = out.with_name(out.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with room(out, _tensor_bytes(_trainable(model))):
            model.save_pretrained(str(temporary), save_embedding_layers=False)
            (temporary / "README.md").unlink(missing_ok=True)  # peft's blank model card
            config = json.loads((temporary / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = None  # a path of this machine
            (temporary / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
