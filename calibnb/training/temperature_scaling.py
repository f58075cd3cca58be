"""Temperature scaling: one scalar that divides the logits, fitted on train settings (Guo et al., 2017).

It can widen or narrow a law, not move it; every benchmark of randomness applies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from scipy.optimize import minimize_scalar

from calibnb.training.packing import Batch
from calibnb.trees.attention import Body

LOWEST, HIGHEST = 0.2, 20.0  # temperatures that are looked at


def temperature_loss(body: Body, batches: Sequence[Batch]) -> Callable[[float], float]:
    """The mean loss of packed prompts (nats per answer) as a function of the temperature.

    The layers run once; only the head depends on the temperature.
    """
    with torch.no_grad():
        hidden = [body.rows(b.rows, b.prefix) for b in batches]
    before = body.temperature

    def loss(temperature: float) -> float:
        body.temperature = temperature
        try:
            total = 0.0
            for states, b in zip(hidden, batches, strict=True):
                row = b.scored[b.entry].cpu().numpy()
                logp = body.scores(states, row, b.token.cpu().numpy())
                total -= float(b.weight.double().cpu().numpy() @ logp) * b.prompts
            return total / sum(b.prompts for b in batches)
        finally:
            body.temperature = before

    return loss


def fit_temperature(loss: Callable[[float], float]) -> float:
    """The temperature with the lowest loss, to about 1 %.

    The loss is convex in 1 / temperature (it is a cross-entropy, and those are convex in the logits' scale), so a
    bounded search cannot end in a valley beside the lowest one.
    """
    found = minimize_scalar(
        lambda scale: loss(1 / scale), bounds=(1 / HIGHEST, 1 / LOWEST), method="bounded", options={"xatol": 1e-3}
    )
    return float(1 / found.x)
