"""Blocks of params.yaml one by one: the same values and the same errors as of the whole file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from calibnb import parameters
from calibnb.blocks import Count, Names, Seeds
from calibnb.errors import UserError
from calibnb.pipeline import params
from calibnb.pipeline.params import Params

ROOT = Path(__file__).parents[1]
STUDY = params.load(ROOT / "params.yaml")
KINDS = {name: field.annotation for name, field in Params.model_fields.items()}


@pytest.mark.parametrize("key", sorted(KINDS))
def test_a_block_alone_is_what_it_is_in_the_whole(key: str) -> None:
    kind: Any = {"models": Names, "methods": Names, "variants": Names, "retention": Names, "numbers": Names}.get(
        key, Seeds if key == "seeds" else Count if key == "bootstrap" else KINDS[key]
    )
    alone = getattr(parameters.load(ROOT / "params.yaml", **{key: kind}), key)
    assert alone == getattr(STUDY, key)


WRONG = {
    "bootstrap": (0, "bootstrap: must be >= 1, got 0"),
    "seeds": ([1, 1], "seeds: must be a list without repeats, got [1, 1]"),
    "structured": ({"open": {}}, "structured.settings: must be given, got nothing"),
    "compute": ({"device": "cpu", "dtype": "int8", "trust_remote_code": False}, "compute.dtype: must be one of auto, "),
    "perplexity": ({"windwo": 3}, "perplexity.windwo: unknown key; allowed: source, split, bytes_per_slice, window, "),
}


@pytest.mark.parametrize("key", sorted(WRONG))
def test_a_wrong_block_is_the_same_line_alone_and_in_the_whole(key: str, tmp_path: Path) -> None:
    value, line = WRONG[key]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params.read(ROOT / "params.yaml") | {key: value}))
    kind: Any = {"seeds": Seeds, "bootstrap": Count}.get(key, KINDS[key])
    for load in (lambda: parameters.load(path, **{key: kind}), lambda: params.load(path)):
        with pytest.raises(UserError, match=f"^{re.escape(f'{path}: {line}')}") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_other_keys_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seeds: [3]\nbootstrap: nonsense\n")
    assert parameters.load(path, seeds=Seeds).seeds == (3,)
    with pytest.raises(UserError, match=r"params\.yaml: models: must be given, got nothing$"):
        parameters.load(path, models=Names)
