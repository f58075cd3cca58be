"""The mixing curve: prompts that state what they ask for, exact laws against products along paths, measures by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from made_up import METHODS, tables
from scipy.special import rel_entr
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb.benchmarks.mixing import measures, prompts, seen
from calibnb.benchmarks.mixing.benchmark import BENCHMARK
from calibnb.benchmarks.mixing.prompts import Item, Pair, Wording
from calibnb.errors import UserError
from calibnb.evidence import claims
from calibnb.evidence.runs import Run
from calibnb.laws import parsing
from calibnb.models import chatformat
from calibnb.trees.attention import Body

ROOT = Path(__file__).parents[1]
COIN = Pair(("heads", "tails"), True)
GRID = [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]
EVERYTHING = Wording(
    "all",
    "{first} {first_percent} {first_decimal} {first_fraction} {first_odds} {first_cases} "
    "{second} {second_percent} {second_decimal} {second_fraction} {second_odds} {second_cases} {total}",
    True,
)


# -------------------------------------------------------------------------------------------------- prompts


def test_a_third_of_the_pairs_and_half_of_the_wordings_may_be_trained_on() -> None:
    pairs, wordings = prompts.table()
    assert len(pairs) == len({pair.name for pair in pairs}) == 3 * sum(pair.seen for pair in pairs)
    assert len(wordings) == 2 * sum(wording.seen for wording in wordings)
    assert len(pairs) >= 8 and len(wordings) >= 4
    used = [(item.pair, item.wording) for item in prompts.items([0.5, 0.6], "all", "all") if not item.held_out]
    assert set(used) == {(p, w) for p in pairs for w in wordings if p.seen and w.seen}


def test_what_may_be_trained_on_is_drawn_as_it_asks() -> None:
    written = (ROOT / "calibnb/benchmarks/mixing/seen.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == list(seen.turns())
    asked = {item.prompt: item for item in prompts.items(seen.PROBABILITIES, "all", "all")}
    assert len({turn["prompt"] for turn in seen.turns()}) == len(written)
    assert not any(asked[turn["prompt"]].held_out for turn in seen.turns())
    assert not {turn["prompt"] for turn in seen.turns()} & {item.prompt for item in prompts.items(GRID, "all", "all")}
    first, p = [], []
    for turn in (turn for seed in range(40) for turn in seen.turns(seed)):
        item = asked[turn["prompt"]]
        assert turn["answer"] in item.pair.words
        first.append(turn["answer"] == item.pair.words[0])
        p.append(item.asked)
    for asked_for in seen.PROBABILITIES:
        here = np.array(first)[np.array(p) == asked_for]
        spread = np.sqrt(asked_for * (1 - asked_for) / len(here))
        assert here.mean() == pytest.approx(asked_for, abs=4 * spread)


def test_no_two_words_of_a_pair_share_a_spelling() -> None:
    for pair in prompts.table()[0]:
        first, second = (set(parsing.spellings([word])) for word in pair.words)
        assert not first & second


def test_every_prompt_is_its_own_and_names_the_words_in_its_order() -> None:
    items = prompts.items(GRID, "all", "all")
    pairs, wordings = prompts.table()
    assert len({item.prompt for item in items}) == len(items) == len(GRID) * len(pairs) * len(wordings) * 2
    for item in items:
        first, second = item.named
        words = [word.strip(".,:?") for word in item.prompt.split()]
        assert words.index(first) < words.index(second)
        assert item.order == ("as listed" if first == item.pair.words[0] else "swapped")
        assert "{" not in item.prompt


def test_fewer_are_evenly_spaced_and_neighbours_differ_in_the_probability_alone() -> None:
    items = prompts.items([0.2, 0.7], 4, 2)
    assert list(dict.fromkeys(item.pair.name for item in items)) == [p.name for p in prompts.table()[0][::3]]
    assert list(dict.fromkeys(item.wording for item in items)) == list(prompts.table()[1][::3])
    assert len(items) == 2 * 4 * 2 * 2
    for one, other in zip(items[::2], items[1::2], strict=True):
        assert replace(one, asked=0.7) == other


@pytest.mark.parametrize(
    ("asked", "order", "text"),
    [
        (0.3, "as listed", "heads 30 0.3 3/10 3 30 tails 70 0.7 7/10 7 70 100"),
        (0.3, "swapped", "tails 70 0.7 7/10 7 70 heads 30 0.3 3/10 3 30 100"),
        (0.01, "as listed", "heads 1 0.01 1/100 1 1 tails 99 0.99 99/100 99 99 100"),
        (0.5, "as listed", "heads 50 0.5 1/2 1 50 tails 50 0.5 1/2 1 50 100"),
        (0.125, "as listed", "heads 12.5 0.125 1/8 1 125 tails 87.5 0.875 7/8 7 875 1000"),
        (0.00001, "as listed", "heads 0.001 0.00001 1/100000 1 1 tails 99.999 0.99999 99999/100000 99999 99999 100000"),
    ],
)
def test_a_probability_as_it_is_written(asked: float, order: prompts.Order, text: str) -> None:
    assert Item(COIN, EVERYTHING, order, asked).prompt == text


@given(st.integers(1, 9999), st.sampled_from(["as listed", "swapped"]))
def test_whatever_a_prompt_writes_is_the_probability_asked_for(share: int, order: prompts.Order) -> None:
    words = Item(COIN, EVERYTHING, order, share / 10_000).prompt.split()
    said = {words[0]: words[1:6], words[6]: words[7:12]}
    total, odds = Fraction(words[12]), sum(Fraction(said[word][3]) for word in COIN.words)
    for word, p in zip(COIN.words, (Fraction(share, 10_000), 1 - Fraction(share, 10_000)), strict=True):
        percent, decimal, fraction, part, cases = map(Fraction, said[word])
        assert percent / 100 == decimal == fraction == part / odds == cases / total == p


# ------------------------------------------------------------------------------------------------- exact laws


def test_what_is_said_equals_products_along_paths(
    any_model: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat = chatformat.chat_format(digit_tokenizer)
    items = prompts.items([0.1, 0.6], 2, 1)
    found = measures.run(Body(any_model), chat, items, batch=3)
    for item, row in zip(items, found.itertuples(), strict=True):
        prompt, mass = chat.prompt_ids(item.prompt), [0.0, 0.0]
        for place, word in enumerate(item.pair.words):
            for form in parsing.spellings([word]):
                answer = [*chat.answer_ids([form])[0], chat.end_id]
                with torch.no_grad():
                    logp = any_model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
                mass[place] += float(np.exp(sum(float(logp[len(prompt) - 1 + i, t]) for i, t in enumerate(answer))))
        assert (row.pair, row.order, row.asked) == (item.pair.name, item.order, item.asked)
        assert (row.first, row.second) == item.named
        assert row.either == pytest.approx(sum(mass), rel=1e-3)
        assert row.said == pytest.approx(mass[0] / sum(mass), rel=1e-3)
        law = np.array([item.asked, 1 - item.asked])
        assert row.divergence == pytest.approx(rel_entr(law, np.array(mass) / sum(mass)).sum(), rel=1e-3)


def test_how_many_prompts_share_a_pass_changes_nothing(
    any_model: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat, body = chatformat.chat_format(digit_tokenizer), Body(any_model)
    items = prompts.items([0.1, 0.6, 0.9], 2, 1)
    alone, together = (measures.log_masses(body, chat, items, batch) for batch in (1, 5))
    np.testing.assert_allclose(alone, together, rtol=1e-4)
    assert alone.shape == (len(items), 2)


def test_spellings_with_the_same_tokens_count_once() -> None:
    letters = chat_tokenizer(["\n", *"abcd."], r"[\s\S]")
    chat = chatformat.chat_format(letters)
    (a, stop), unknown = letters.convert_tokens_to_ids(["a", "."]), letters.unk_token_id
    both = {(a,): 0, (unknown,): 0, (a, stop): 0, (unknown, stop): 0}  # a, A, a., A.
    both |= {(unknown, unknown): 1, (unknown, unknown, stop): 1}  # xy, Xy and XY, and each with a stop
    assert measures.spelt(chat, ("a", "xy")) == {(*ids, chat.end_id): place for ids, place in both.items()}
    with pytest.raises(UserError, match="mixing: the tokenizer writes 'B' like an answer that is a"):
        measures.spelt(chat, ("a", "b"))


# ---------------------------------------------------------------------------------------------------- measures


def rows_of(said: object, **columns: object) -> pd.DataFrame:
    """A row an item of one pair in both orders, with what is said of each probability, and nothing else of note."""
    asked = np.array([0.1, 0.3, 0.8] * 2)
    frame = pd.DataFrame({"asked": asked, "order": ["as listed"] * 3 + ["swapped"] * 3, "pair": "a/b", "either": 0.5})
    said = asked if said is None else said
    about = {"model": "m", "variant": "soft", "seed": 11, "divergence": 0.0}
    return frame.assign(said=said, **(about | columns))


def one(frame: pd.DataFrame) -> dict[str, float]:
    (row,) = measures.by_pair(frame).to_dict("records")
    return {name: row[name] for name in measures.MEASURES}


def test_measures_of_those_that_mix_as_asked_and_of_those_that_do_not() -> None:
    perfect = {"slope": 1, "error": 0, "divergence": 0, "first_gain": 0, "either": 0.5}
    assert one(rows_of(None)) == pytest.approx(perfect, abs=1e-12)
    half = perfect | {"slope": 0, "error": (0.4 + 0.2 + 0.3) / 3, "divergence": 0.25}
    assert one(rows_of(0.5, divergence=[0.1, 0.2, 0.3, 0.4, 0.5, 0.0])) == pytest.approx(half, abs=1e-12)
    first = perfect | {"slope": 0, "error": 0.5, "first_gain": 1}  # it always says what the prompt names first
    assert one(rows_of([1.0] * 3 + [0.0] * 3)) == pytest.approx(first, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_the_slope_is_that_of_least_squares(said: list[float]) -> None:
    frame = rows_of(said)
    fitted = np.polyfit(frame["asked"], frame["said"], 1)[0]
    assert one(frame)["slope"] == pytest.approx(fitted, abs=1e-9)
    turned = frame.assign(said=1 - frame["said"], asked=1 - frame["asked"])  # the other word of the pair
    assert one(turned)["slope"] == pytest.approx(fitted, abs=1e-9)
    assert one(turned)["error"] == pytest.approx(one(frame)["error"], abs=1e-9)


def test_seeds_and_pairs_are_measured_each_on_its_own() -> None:
    parts = [rows_of(None), rows_of(0.5, pair="c/d"), rows_of(0.5, seed=12), rows_of(None, pair="c/d", seed=12)]
    found = measures.by_pair(pd.concat(parts, ignore_index=True))
    assert found[["seed", "pair"]].to_numpy().tolist() == [[11, "a/b"], [11, "c/d"], [12, "a/b"], [12, "c/d"]]
    assert found["slope"].tolist() == pytest.approx([1, 0, 0, 1])
    summary = BENCHMARK.how(found, None, ["slope"], by="", resamples=20).iloc[0]
    assert summary[["value", "low", "high"]].tolist() == pytest.approx([0.5, 0.5, 0.5])  # means of seeds
    assert summary["items"] == 2


def test_what_training_may_have_seen_of_an_item_is_measured_apart() -> None:
    seen_of = {(p.name, w.name): (p.seen, w.seen) for p in prompts.table()[0] for w in prompts.table()[1]}
    slopes = {(True, True): 1.0, (False, True): 0.5, (True, False): 0.25, (False, False): 0.0}
    rows = []
    for (pair, wording), kind in seen_of.items():
        row = rows_of(None, pair=pair, wording=wording)
        rows.append(row.assign(said=0.5 + slopes[kind] * (row["asked"] - 0.5)))
    found = (
        measures.by_kind(pd.concat(rows, ignore_index=True)).groupby("seen", sort=False)["slope"].agg(["min", "max"])
    )
    assert found["min"].to_dict() == pytest.approx({measures.KINDS[kind]: slope for kind, slope in slopes.items()})
    assert found["max"].to_dict() == pytest.approx(found["min"].to_dict())
    assert set(measures.by_kind(rows[0])["seen"]) == {measures.KINDS[next(iter(seen_of.values()))]}


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_the_divergence_is_that_of_two_laws_on_two_words(asked: float, said: float) -> None:
    got = measures.divergence(np.array([asked]), np.log([said]), np.log1p([-said]))
    law, other = np.array([asked, 1 - asked]), np.array([said, 1 - said])
    assert got == pytest.approx([rel_entr(law, other).sum()], abs=1e-9)
    assert measures.divergence(np.array([asked]), np.array([-1e4]), np.array([0.0])) == pytest.approx(
        [1e4 * asked + asked * np.log(asked) + (1 - asked) * np.log1p(-asked)]
    )


# ------------------------------------------------------------------------------------------------------ claims


def test_claims_are_judged_and_words_that_are_hardly_said_are_not_comparable(tmp_path: Path) -> None:
    variants = ("base", "format", "soft", "hard")
    tables(tmp_path, ["tiny"], variants)
    hard = ([0.75, 0.75, 0.85] * 2, [0.85, 0.75, 0.75] * 2)  # far off, with a slope above 0 and one below
    said = {"base": (0.5, 0.5), "format": (0.5, 0.5), "soft": (None, None), "hard": hard}
    for variant, values in said.items():
        either = 0.009 if variant == "format" else 0.9
        rows = [
            rows_of(value, pair=pair, variant=variant, either=either)
            for pair, value in zip(("a/b", "c/d", "e/f", "g/h", "i/j", "k/l"), values * 3, strict=True)
        ]
        pd.concat(rows).to_parquet(tmp_path / "mixing" / "tiny" / variant / "items.parquet")
    methods = {name: METHODS[name] for name in variants[1:]}
    run = Run(tmp_path, ["tiny"], [11], {"mixing": variants}, methods, 20)
    found = {str(finding["id"]): finding for finding in claims.evaluate([BENCHMARK.claims], run)}
    assert {name: finding["verdict"] for name, finding in found.items() if finding["claim"]} == {
        "mixing.soft.error_vs_base": "supported",
        "mixing.soft.slope_vs_base": "supported",
        "mixing.soft.error_vs_format": "not comparable",
        "mixing.hard.error_vs_base": "refuted",
        "mixing.hard.slope_vs_base": "open",
        "mixing.hard.error_vs_format": "not comparable",
        "mixing.hard.error_vs_soft": "refuted",
    }
    assert found["mixing.soft.error"]["value"] == pytest.approx(0, abs=1e-12)
    assert found["mixing.soft.error_vs_base"]["value"] == pytest.approx(-0.3)
    assert found["mixing.hard.error_vs_soft"]["value"] == pytest.approx(0.4)
