"""The objective: a weighted sum of next-token cross-entropies, without keeping the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from calibnb.training.packing import Batch
from calibnb.trees.attention import Body, head_logits


class _WeightedCrossEntropy(torch.autograd.Function):
    """``sum_e weight[e] * -log softmax(hidden @ head^T)[entry[e], token[e]]`` without keeping the logits.

    With ``reference [r, h]`` and ``kl_weight [r]`` also ``sum_i kl_weight[i] * KL(p_i || q_i)``, where ``q_i`` is the
    law that ``hidden[i]`` gives to the next token and ``p_i`` the one that ``reference[i]`` gives, without a gradient.

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
        kl_weight: Tensor,
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
            weighted_base = None
            if reference is not None:
                of_base = torch.log_softmax(head_logits(reference[a : a + chunk], head32, bias), dim=-1)
                weighted_base = of_base.exp() * kl_weight[a : a + chunk, None]
                loss += (weighted_base * (of_base - logp)).double().sum()
                per_row += kl_weight[a : a + chunk]
            # d loss / d logits = (sum of the row's weights) * softmax - weights at the scored tokens
            slope = logp.exp_().mul_(per_row[:, None])
            if weighted_base is not None:
                slope -= weighted_base
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
    With ``kl_weight > 0`` it is ``loss_weight`` times that plus ``kl_weight`` times KL(base || adapter) of the next
    token, averaged as the loss is; the base is the model with its adapter switched off.
    """

    def __init__(self, model: nn.Module, chunk: int = 128) -> None:
        super().__init__()
        self.model = model
        self.body = Body(model)
        self.chunk = chunk

    def forward(self, batch: Batch, loss_weight: float = 1.0, kl_weight: float = 0.0) -> Tensor:
        head = self.body.head
        reference = None
        if kl_weight:
            with torch.no_grad(), self.model.disable_adapter():  # type: ignore[operator]
                reference = self.body.rows(batch.rows, batch.prefix)[batch.scored].to(head.weight.dtype)
        hidden = self.body.rows(batch.rows, batch.prefix)[batch.scored].to(head.weight.dtype)
        # Logits, their gradient for the hidden states, and the base's logits.
        products = 2 if reference is None else 3
        self.body.operations.count += products * 2 * head.weight.numel() * len(hidden)
        per_row = hidden.new_zeros(len(hidden), dtype=torch.float32).index_add_(0, batch.entry, batch.weight)
        loss: Tensor = _WeightedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, self.body.head32, head.bias,
            batch.entry, batch.token, loss_weight * batch.weight, self.chunk, reference, kl_weight * per_row,
        )  # fmt: skip
        return loss - loss_weight * batch.entropy
