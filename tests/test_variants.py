"""Variants: what is loaded for a name, and what of its answers stays on disk until a stage is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibnb.benchmarks import variants
from calibnb.errors import UserError
from calibnb.models import fetching, params

COMPUTE = params.ComputeParams(device="cpu", dtype="float32", trust_remote_code=False)


@pytest.fixture
def project(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder after the weights stage."""
    monkeypatch.chdir(tiny_folder.parent)
    fetching.fetch("./tiny", Path("models/tiny/weights"))
    return tiny_folder.parent


def load(variant: str) -> list[variants.Variant]:
    return list(variants.load("./tiny", variant, (11, 7, 29), COMPUTE, benchmark="test", batch=4))


def test_base_and_temperature_differ_in_the_temperature_alone(project: Path) -> None:
    folder = project / "variants" / "tiny" / "temperature"
    folder.mkdir(parents=True)
    (folder / "temperature.json").write_text(json.dumps({"temperature": 50.0}))
    (base,), (warm,) = load("base"), load("temperature")
    assert (base.body.temperature, warm.body.temperature) == (1, 50)
    assert base.who == {"model": "./tiny", "variant": "base", "seed": variants.AS_IT_COMES}
    cold, hot = (v.ask(["x"], draws=40, max_new_tokens=1)[0] for v in (base, warm))
    assert len(set(hot)) > len(set(cold))


def test_answers_stay_until_the_stage_is_done(project: Path) -> None:
    (base,) = load("base")
    answers = base.ask(["x", "y"], draws=3, max_new_tokens=2)
    kept = project / ".scratch" / "test" / "tiny" / "base--1.jsonl"
    assert len(kept.read_text().splitlines()) == 2
    assert load("base")[0].ask(["x", "y"], draws=3, max_new_tokens=2) == answers
    variants.done("./tiny", "base", "test")
    assert not kept.exists()


def test_a_stage_that_is_done_leaves_another_methods_answers(project: Path) -> None:
    scratch = project / ".scratch" / "test" / "tiny"
    scratch.mkdir(parents=True)
    for name in ("soft--1", "soft-11", "soft-b-11", "soft-2-11"):
        (scratch / f"{name}.jsonl").write_text("")
    variants.done("./tiny", "soft", "test")
    assert sorted(path.stem for path in scratch.iterdir()) == ["soft-2-11", "soft-b-11"]


def test_an_untrained_method_is_one_line(project: Path) -> None:
    with pytest.raises(UserError, match=r"^variants/tiny/soft: no adapter here; run `dvc repro finetune` first$"):
        load("soft")


def test_a_temperature_that_was_not_fitted_is_one_line(project: Path) -> None:
    with pytest.raises(UserError, match=r"temperature.json: no fitted temperature here; run `dvc repro temperature`"):
        load("temperature")


def test_adapters_of_other_seeds_are_passed_over(project: Path) -> None:
    for seed in (11, 12):
        (project / "variants" / "tiny" / "soft" / f"seed-{seed}").mkdir(parents=True)
    with pytest.raises(UserError, match=r"seed-11: missing adapter_config.json"):
        list(variants.load("./tiny", "soft", (11,), COMPUTE, benchmark="test", batch=4))
    with pytest.raises(UserError, match=r"^variants/tiny/soft: no adapter here"):
        list(variants.load("./tiny", "soft", (3,), COMPUTE, benchmark="test", batch=4))
