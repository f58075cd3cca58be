"""What variants answered plainly, beside other ways of asking: which rows are gathered, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import ASKED, tables, write

from calibnb.benchmarks.baselines import beside, items, summary

WHO = {"model": "tiny", "variant": "soft", "seed": 11}


def rows(root: Path, benchmark: str, table: str, **columns: Any) -> None:
    write(root / benchmark / "tiny" / "soft" / f"{table}.parquet", pd.DataFrame(columns | WHO))


def test_rows_on_the_same_questions_are_gathered(tmp_path: Path) -> None:
    rows(tmp_path, "language", "exact", suite=["choices", "shares"], id=["a", "a"], valid_mass=[0.1, 0.2])
    rows(tmp_path, "language", "sampled", suite=["draws", "draws"], id=["a", "b"], valid=[0.3, 0.4])
    rows(tmp_path, "language", "paraphrases", label=["1", "1"], wording=["x", "y"], nw1=[0.5, 0.6])
    settings = {"split": ["held_out", "validation", "unseen"], "label": ["1", "1", "2"], "nw1": [0.7, 0.8, 0.9]}
    rows(tmp_path, "structured", "settings", **settings)
    rows(tmp_path, "novelty", "prompts", id=["p", "q"], empty=[0, 1], generations=3, distinct=[1, 2])
    texts = {"letter": ["A", None], "parsed": [True, False], "strict": False, "distinct_options": [True, False]}
    rows(tmp_path, "positions", "texts", text=["long", "longer"], **texts)
    asked: dict[str, Any] = {"language": {"ids": ["choices.a", "draws.b"]}, "novelty": {"ids": ["q"]}}
    asked["positions"] = {"answers": 2}
    found = beside.gather(tmp_path, "tiny", ["soft"], [11, 29], asked)
    parts = {name: part.dropna(axis=1, how="all") for name, part in found.groupby("benchmark", sort=False)}
    assert (found[list(WHO)] == list(WHO.values())).all(axis=None)
    said = parts["language"]
    assert list(zip(said["suite"], said["id"], strict=True)) == [("choices", "a"), ("draws", "b")]
    assert said["valid_mass"].iloc[0] == 0.1 and said["valid"].iloc[1] == 0.4
    assert parts["novelty"][["id", "empty", "generations", "distinct"]].to_numpy().tolist() == [["q", 1, 3, 2]]
    written = parts["positions"]
    assert written["parsed"].tolist() == [True, False] and "text" not in written
    # A setting that is measured in range is another one, and so is one that was asked in no other wording.
    words = parts["wordings"][["wording", "label", "nw1"]].to_numpy().tolist()
    assert words == [["x", "1", 0.5], ["y", "1", 0.6], ["the study's own", "1", 0.7]]
    assert set(parts) == {"language", "novelty", "positions", "wordings"}
    (tmp_path / "positions" / "tiny" / "soft" / "texts.parquet").unlink()
    asked["positions"] = {"answers": "none"}
    without = beside.gather(tmp_path, "tiny", ["soft"], [11, 29], asked)
    assert set(without["benchmark"]) == {"language", "novelty", "wordings"}


def test_adapters_of_other_seeds_are_left_out(tmp_path: Path) -> None:
    tables(tmp_path, ["tiny"], ["base", "soft"])
    assert set(beside.gather(tmp_path, "tiny", ["base", "soft"], [29], ASKED)["variant"]) == {"base"}


def test_the_stage_gathers_all_models_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tables(Path("results"), ["tiny", "other"], ["base", "soft", "mixed"])
    named = {"settings": 1, "categories": ["animal"], "draws": 1, "questions": 1, "prompts": 1, "items": 1}
    named |= {"ways": ["ssot"]}
    block = named | {"variants": ["base", "soft"], "max_new_tokens": 1, "batch": 1}
    names = {"models": ["tiny", "other"], "variants": ["base", "soft", "mixed"], "seeds": [11]}
    Path("params.yaml").write_text(json.dumps(names | {"benchmarks": {"baselines": block}}))
    items.ASKED.parent.mkdir(parents=True)
    items.ASKED.write_text(json.dumps(ASKED))
    assert beside.main() == 0
    found = pd.read_parquet(beside.TABLE)
    assert set(zip(found["model"], found["variant"], strict=True)) == {
        (model, variant) for model in ("tiny", "other") for variant in ("base", "soft")
    }


def number(found: pd.DataFrame, benchmark: str, variant: str, measure: str) -> float:
    here = (found["benchmark"] == benchmark) & (found["variant"] == variant) & (found["measure"] == measure)
    (value,) = found[here]["value"]
    return float(value)


def made_up() -> dict[str, pd.DataFrame]:
    """Two ways of asking and a plain one; every number is known by hand."""
    base = {"variant": "base", "seed": -1}
    way = ["", "", "ssot", "ssot"]
    numbers = {"label": ["1", "2"] * 2, "valid_mass": [0.2, 0.4, 1.0, 0.5], "number_mass": 1.0, "nw1": [1, 2, 3, 5]}
    words = {"category": ["a", "b"] * 2, "draws": 4, "empty": [0, 1, 2, 4], "unique_fraction_folded": [0.5, 1, 0, 0]}
    words |= {"valid_share": 0.5, "valid_unique_fraction": 0.25}
    return {
        "structured": pd.DataFrame(numbers | {"way": way} | base),
        "openended": pd.DataFrame(words | {"way": way} | base),
        "positions": pd.DataFrame(
            {"letter": ["A", "B", None, None], "parsed": [True, True, False, False], "strict": False}
            | {"distinct_options": [True, True, False, False], "way": "ssot"}
            | base
        ),
        "novelty": pd.DataFrame({"id": ["p"], "empty": 1, "generations": 4, "distinct": 3, "way": "ssot"} | base),
        "choices": pd.DataFrame(
            {"suite": ["choices", "shares"], "id": ["a", "b"], "valid": [0.5, 1.0], "way": "ssot"}
            | {"normalised_tv": [9.0, 0.5]}
            | base
        ),
        "lists": pd.DataFrame(
            {"suite": ["draws", "shuffles"], "id": ["a", "b"], "valid": [0.0, 0.5], "way": "ssot"}
            | {"pooled_tv_ratio": [2.0, float("nan")], "first_tv_ratio": [float("nan"), 3.0]}
            | base
        ),
    }


def test_ways_of_asking_are_summed_up() -> None:
    found = summary.summarise(made_up(), None, resamples=20)
    assert list(dict.fromkeys(found["variant"])) == ["base", "ssot"]
    values = {
        ("structured", "base", "valid_mass"): 0.3,
        ("structured", "base", "nw1"): 1.5,
        ("structured", "ssot", "valid_mass"): 0.75,
        ("structured", "ssot", "nw1"): 4,
        ("openended", "base", "answered"): 0.875,
        ("openended", "ssot", "answered"): 0.25,
        ("openended", "base", "unique_fraction_folded"): 0.75,
        ("novelty", "ssot", "answered"): 0.75,
        ("novelty", "ssot", "distinct"): 3,
        ("language", "ssot", "valid"): 0.5,
        ("language", "ssot", "normalised_tv"): 0.5,  # of exact suites alone
        ("language", "ssot", "pooled_tv_ratio"): 2,
        ("language", "ssot", "first_tv_ratio"): 3,
        ("positions", "ssot", "parsed"): 0.5,
    }
    assert {place: number(found, *place) for place in values} == pytest.approx(values)
    asked = found[found["variant"] == "base"]["benchmark"]
    assert set(asked) == {"structured", "openended"}  # the plain way is asked no more than that


def test_what_was_answered_plainly_stands_beside() -> None:
    plain = pd.concat(
        [
            pd.DataFrame({"benchmark": "novelty", "id": ["p"], "empty": 0, "generations": 4, "distinct": 2} | WHO),
            pd.DataFrame(
                {"benchmark": "positions", "letter": ["A", "B", "C", "D"], "parsed": True, "strict": True}
                | {"distinct_options": True}
                | WHO
            ),
            pd.DataFrame(
                {"benchmark": "language", "suite": ["shares", "draws"], "id": ["b", "a"], "valid": [None, 0.25]}
                | {"valid_mass": [0.75, None], "normalised_tv": [0.1, None], "pooled_tv_ratio": [None, 4.0]}
                | WHO
            ),
        ],
        ignore_index=True,
    )
    found = summary.summarise(made_up(), plain, resamples=20)
    values = {
        ("novelty", "soft", "answered"): 1.0,
        ("novelty", "soft", "distinct"): 2,
        ("positions", "soft", "parsed"): 1.0,
        ("positions", "soft", "letters_tv_ratio"): 0.0,
        ("language", "soft", "valid"): 0.5,
        ("language", "soft", "normalised_tv"): 0.1,
        ("language", "soft", "pooled_tv_ratio"): 4.0,
    }
    assert {place: number(found, *place) for place in values} == pytest.approx(values)
    # What was asked in other ways is what it is alone.
    alone = summary.summarise(made_up(), None, resamples=20)
    others = found[found["variant"] != "soft"].merge(alone, on=["benchmark", "variant", "measure"])
    assert len(others) == len(alone)
    pd.testing.assert_series_equal(others["value_x"], others["value_y"], check_names=False)


def test_without_base_nothing_was_asked_in_another_way(tmp_path: Path) -> None:
    tables(tmp_path, ["tiny"], ["base", "soft"])
    folder = tmp_path / "baselines" / "tiny"
    assert set(summary.read(folder, ["soft"], [11])) == set(summary.EVERY)
    assert set(summary.read(folder, ["base", "soft"], [11])) == {*summary.EVERY, *summary.WAYS}
