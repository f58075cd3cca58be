"""Memory that a study needs: how many stages there is room for, and what is said where there is none."""

from __future__ import annotations

import pytest
import torch
from notebook_code import ROOT

from calibnb.errors import UserError
from calibnb.pipeline import memory, params

STUDY = params.load(ROOT / "params.yaml").model_copy(update={"models": ("smollm2-135m", "qwen2.5-coder-0.5b")})
STUDY = STUDY.model_copy(update={"compute": STUDY.compute.model_copy(update={"device": "cpu", "dtype": "float32"})})


def test_stages_at_once_have_room_for_the_largest_model() -> None:
    needs = dict(memory.needs(STUDY))
    small, large = needs["smollm2-135m"], needs["qwen2.5-coder-0.5b"]
    assert small < large < 8 * 2**30
    assert memory.jobs_that_fit(STUDY, 2, int(2 * large) + 1) == 2
    assert memory.jobs_that_fit(STUDY, 2, int(2 * large) - 1) == 1
    assert memory.jobs_that_fit(STUDY, 1, int(9 * large)) == 1


def test_too_little_for_one_stage_is_one_line_with_the_keys_to_lower() -> None:
    with pytest.raises(
        UserError, match=r"^models: qwen2.5-coder-0.5b must have about .* GiB of memory, got 2.0 GiB"
    ) as said:
        memory.jobs_that_fit(STUDY, 2, 2 * 2**30 + 1)
    assert "lower models" in str(said.value) and "prompts_per_step under finetune" in str(said.value)
    assert "\n" not in str(said.value)


def test_a_step_in_more_passes_needs_less_and_so_does_a_shorter_number_format() -> None:
    whole, half = (memory.stage_bytes(10**9, torch.float32, passes) - memory.LIBRARIES for passes in (1, 2))
    assert whole == 14e9 and half == 9e9
    assert memory.stage_bytes(10**9, torch.bfloat16, 1) - memory.LIBRARIES == 12e9


def test_a_hub_id_is_not_counted_before_it_is_here() -> None:
    assert list(memory.needs(STUDY.model_copy(update={"models": ("org/name",)}))) == []
