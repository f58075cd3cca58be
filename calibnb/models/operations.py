"""Floating-point operations of a model, counted from the shapes of what it multiplies.

Counted are products of matrices, as two operations a multiplication with its addition: those of the layers, of
attention with all its keys, masked ones too, and of the head, and in a backward pass those that make gradients: one
more for a frozen layer, two for a trained one. torch's own counter finds the same numbers (a test compares them), but
it looks at everything that a pass does: on a CPU a pass of the study's model takes a fifth to a third longer with it,
one of SmolLM2-135M up to twice as long. Here only layers and attention are watched, which costs about a millisecond a
pass.

Left out are norms, activations, embeddings and rotary tables, experts whose matrices are one tensor, and attention
where a model does not take it from the library's table of implementations, as GPT-OSS does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

ATTENTION: AttentionInterface = ALL_ATTENTION_FUNCTIONS


def tflop(operations: int) -> float:
    """Operations in 10^12, as results have them."""
    return operations / 1e12


class Operations:
    """Counts what a model does from now on.

    Parameters
    ----------
    model : nn.Module
        Its linear layers are watched, with all adapters that they have by now.

    Attributes
    ----------
    count : int
        Operations so far. Who multiplies by a weight without its layer adds to it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        for part in model.modules():
            if isinstance(part, nn.Linear | Conv1D):
                part.register_forward_hook(self._product)

    def _product(self, layer: nn.Linear | Conv1D, inputs: tuple[Tensor, ...], output: Any) -> None:
        states = inputs[0]
        once = 2 * layer.weight.numel() * (states.numel() // states.shape[-1])
        made = output if isinstance(output, Tensor) else output[0]  # routers of experts return several
        self._add(once, made, once * (states.requires_grad + layer.weight.requires_grad))

    def _add(self, forward: int, output: Tensor, backward: int) -> None:
        """Count a product, and those of its backward pass if there will be one."""
        self.count += forward
        if output.requires_grad:
            output.register_hook(partial(self._later, backward))

    def _later(self, backward: int, _gradient: Tensor) -> None:
        self.count += backward

    @contextmanager
    def attention(self, implementation: str) -> Iterator[None]:
        """Count the products of attention, too, within the block; its ``implementation`` is named as in configurations.

        A name that is not in the library's table is one that models do not look up there: nothing is counted.
        """
        if implementation not in ATTENTION:
            yield
            return
        before = ATTENTION[implementation]

        def counted(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **how: Any) -> Any:
            found = before(module, query, key, value, *rest, **how)
            mixed: Tensor = found[0]
            keys = key.shape[-2]
            scoring, mixing = 2 * query.numel() * keys, 2 * mixed.numel() * keys  # query [b, heads, q, d]
            of_scores = query.requires_grad or key.requires_grad
            self._add(
                scoring + mixing,
                mixed,
                scoring * (query.requires_grad + key.requires_grad) + mixing * (of_scores + value.requires_grad),
            )
            return found

        ATTENTION[implementation] = counted
        try:
            yield
        finally:
            ATTENTION[implementation] = before
