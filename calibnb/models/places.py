"""How names of models are written: the patterns of the hub's, what a name is called as part of a path, and one path.

What a name stands for is in :mod:`calibnb.models.naming`, which knows the table of packaged models; measuring and
showing do not depend on that table.
"""

from __future__ import annotations

import re
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HUB = re.compile(rf"{NAME.pattern}/{NAME.pattern}")
HUB_SPLIT = re.compile(rf"({HUB.pattern}):(?:([\w.+-]+):)?(\w+(?:\.\w+)*)")  # org/name:split, org/name:config:split


def place(name: str) -> str:
    """The name of a model as part of a path, below the folders of models, variants, results and pages."""
    return name.removeprefix(".").lstrip("/")


def own_answers(model: str, method: str) -> Path:
    """The model's own answers that a method mixes into calibration; an empty file where it mixes none."""
    return Path("models") / place(model) / "ordinary" / f"{method}.jsonl"
