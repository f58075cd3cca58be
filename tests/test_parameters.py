"""Blocks of params.yaml one by one: the same values and the same errors as of the whole file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from calibnb import parameters
from calibnb.benchmarks import registry
from calibnb.blocks import Count, Names, Seeds
from calibnb.errors import UserError
from calibnb.pipeline import params
from calibnb.pipeline.params import Params

ROOT = Path(__file__).parents[1]
STUDY = params.load(ROOT / "params.yaml")
KINDS = {name: field.annotation for name, field in Params.model_fields.items() if name != "families"}


@pytest.mark.parametrize("key", sorted(KINDS))
def test_a_block_alone_is_what_it_is_in_the_whole(key: str) -> None:
    kind: Any = {"models": Names, "methods": Names, "variants": Names}.get(
        key, Seeds if key == "seeds" else Count if key == "bootstrap" else KINDS[key]
    )
    alone = getattr(parameters.load(ROOT / "params.yaml", **{key: kind}), key)
    assert alone == getattr(STUDY, key)


WRONG = {
    "bootstrap": (0, "bootstrap: must be >= 1, got 0"),
    "seeds": ([1, 1], "seeds: must be a list without repeats, got [1, 1]"),
    "benchmarks.structured": ({"open": {}}, "benchmarks.structured.variants: must be given, got nothing"),
    "compute": ({"device": "cpu", "dtype": "int8", "trust_remote_code": False}, "compute.dtype: must be one of auto, "),
    "benchmarks.perplexity": (
        {"windwo": 3},
        "benchmarks.perplexity.windwo: unknown key; allowed: variants, source, split, bytes_per_slice, window, stride",
    ),
}


@pytest.mark.parametrize("key", sorted(WRONG))
def test_a_wrong_block_is_the_same_line_alone_and_in_the_whole(key: str, tmp_path: Path) -> None:
    value, line = WRONG[key]
    path = tmp_path / "params.yaml"
    whole = params.read(ROOT / "params.yaml")
    outer, _, inner = key.partition(".")
    if inner:
        whole["benchmarks"] |= {inner: value}
        kind: Any = {inner: registry.blocks()[inner]}
    else:
        whole |= {key: value}
        kind = {"seeds": Seeds, "bootstrap": Count}.get(key, KINDS[key])
    params.write(whole, tmp_path)
    for load in (lambda: parameters.load(path, **{outer: kind}), lambda: params.load(path)):
        with pytest.raises(UserError, match=f"^{re.escape(f'{path}: {line}')}") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_keys_below_a_key_are_loaded_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: {b: {seeds: [3], other: 1}, c: nonsense}\nd: 2\n")
    part = parameters.load(path, a={"b": {"seeds": Seeds}}, d=Count)
    assert (part.a.b.seeds, part.d) == ((3,), 2)
    assert parameters.load(path, a={}, d=Count).a.model_dump() == {}
    for kinds, line in {
        "a.b.bootstrap: must be given, got nothing": {"a": {"b": {"bootstrap": Count}}},
        "a.e: must be given, got nothing": {"a": {"e": {"seeds": Seeds}}},
        "e: must be given, got nothing": {"e": {"seeds": Seeds}},
        'a.c: must be a block of keys, got "nonsense"': {"a": {"c": {"seeds": Seeds}}},
        "a.b.other: must be a list with at least one entry, got 1": {"a": {"b": {"other": Seeds}}},
    }.items():
        with pytest.raises(UserError, match=f"^{re.escape(f'{path}: {kinds}')}$"):
            parameters.load(path, **line)


def test_other_keys_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seeds: [3]\nbootstrap: nonsense\n")
    assert parameters.load(path, seeds=Seeds).seeds == (3,)
    with pytest.raises(UserError, match=r"params\.yaml: models: must be given, got nothing$"):
        parameters.load(path, models=Names)
