"""Blocks of params.yaml on models: their names, and where and in which number format they run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from calibnb.blocks import Block, refusal
from calibnb.models.naming import requirement


def _model_name(raw: Any) -> Any:
    needed = requirement(raw if isinstance(raw, str) else "")
    if needed is not None:
        raise refusal(needed, raw)
    return raw


def _device(raw: Any) -> Any:
    if not isinstance(raw, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", raw):
        raise refusal("auto, cpu, cuda or cuda:N", raw)
    return raw


ModelName = Annotated[str, BeforeValidator(_model_name)]


class ComputeParams(Block):
    device: Annotated[str, BeforeValidator(_device)]
    dtype: Literal["auto", "bfloat16", "float32"]
    trust_remote_code: bool
