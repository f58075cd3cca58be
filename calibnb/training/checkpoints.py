"""Checkpoints: how far a run has come, on disk, so that a killed one resumes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calibnb.errors import room


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    step : int
        Steps done.
    rows : list[dict[str, float]]
        The log so far.
    tokens, unpacked, operations : int
        As in :class:`Trained`, but for what comes before the first step.
    best_loss, best_step, best : float, int, dict[str, tensor]
        Lowest validation loss, its step and the trained parameters then.
    """

    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0
    unpacked: int = 0
    operations: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A run on disk, so that a killed one resumes.

    Attributes
    ----------
    path : Path
        The file; it appears at once or not at all, and what a full disk cut off is removed.
    run : str
        Identifies the run: a checkpoint of other settings, prompts or weights is left aside, not continued.
    parameters : dict[str, tensor]
        The trained parameters by name; they, ``optimizer`` and ``scheduler`` are saved and set.
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
        kept = [f.name for f in fields(Progress)]
        if state["run"] != self.run or not state.keys() >= set(kept):  # of another run, or as it was kept once
            return Progress()
        for name, p in self.parameters.items():
            p.data.copy_(state["adapter"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return Progress(**{name: state[name] for name in kept})

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
            with room(self.path, tensor_bytes(state)), new.open("wb") as file:
                torch.save(state, file)
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)


def tensor_bytes(state: Any) -> int:
    """Bytes of all tensors in nested dictionaries and lists."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(tensor_bytes, state.values()))
    return sum(map(tensor_bytes, state)) if isinstance(state, list | tuple) else 0
