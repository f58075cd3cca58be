"""How much memory the largest stages need, so that a study which does not fit says so before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from calibnb.errors import UserError
from calibnb.models import loading, naming
from calibnb.models.folders import tensors_in, weights_files
from calibnb.pipeline.params import Params

# Python with its libraries, and what a pass over a thousand tokens or so takes beside the weights, in bytes for each
# parameter. Training Qwen2.5-Coder-0.5B in two passes a step took 3.6 GiB after three steps in bfloat16, 4.7 in
# float32; what the allocator keeps grows with the steps, in bfloat16 to 5.7 GiB within 49, which these stand for.
LIBRARIES, PASS = 1.5 * 2**30, 10


def stage_bytes(parameters: int, dtype: torch.dtype, passes: int) -> float:
    """About how much memory training takes with so many parameters, a step in so many passes."""
    return LIBRARIES + parameters * (dtype.itemsize + PASS / passes)


def _parameters(name: str) -> int | None:
    """How many a model has; None for one of a hub, of which that is known when it is here."""
    source = naming.resolve(name)
    if source.kind != "folder":
        return source.parameters
    shapes = (shape for file in weights_files(Path(name)) for shape, _ in tensors_in(file).values())
    return sum(torch.Size(shape).numel() for shape in shapes)


def needs(study: Params) -> Iterator[tuple[str, float]]:
    """Each model of the study whose size is known, and the bytes that its largest stage takes on a CPU."""
    dtype = loading.pick_dtype(study.compute.dtype, torch.device("cpu"))
    passes = min((study.finetune[method].accumulation_steps for method in study.methods), default=1)
    for name in study.models:
        parameters = _parameters(name)
        if parameters is not None:
            yield name, stage_bytes(parameters, dtype, passes)


def jobs_that_fit(study: Params, jobs: int, available: int | None = None) -> int:
    """How many stages at once there is memory for, at most `jobs`.

    Parameters
    ----------
    study : Params
        The parameters.
    jobs : int
        What is asked for.
    available : int or None
        Bytes; what the machine can give now, if None.

    Raises
    ------
    UserError
        Where there is too little for one.
    """
    if loading.pick_device(study.compute.device).type != "cpu":
        return jobs
    free = psutil.virtual_memory().available if available is None else available
    name, needed = max(needs(study), key=lambda need: need[1], default=("", 1.0))
    if needed > free:
        raise UserError(
            f"models: {name} must have about {needed / 2**30:.1f} GiB of memory, got {free / 2**30:.1f} GiB that are "
            "free; lower models (a smaller one), or prompts_per_step under finetune"
        )
    return min(jobs, int(free // needed))
