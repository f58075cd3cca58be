"""The open law against brute force over a whole grammar, and against 100,000 samples."""

from __future__ import annotations

import re
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb.models.chatformat import chat_format
from calibnb.trees import number_search
from calibnb.trees.attention import Body
from calibnb.trees.number_search import (
    FRACTION,
    INTEGER,
    POINT,
    SIGN,
    START,
    NumberTokens,
    interval,
    number_tokens,
    open_law,
    open_laws,
    stand_in,
)
from calibnb.trees.sampling import sample

from conftest import tiny_model  # isort: skip

NUMBER = re.compile(r"-?\d+(\.\d+)?")
PREFIX = re.compile(r"-?(\d+(\.\d*)?)?")


def favour_numbers(model: PreTrainedModel, numbers: NumberTokens, end_id: int) -> PreTrainedModel:
    """Tilt a random model so that it writes short numbers most of the time, as a calibrated one does."""
    with torch.no_grad():
        direction = model.lm_head.weight.mean(0)
        head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features, bias=True)
        head.weight.copy_((model.lm_head.weight - direction) / 4)
        head.bias.fill_(-8.0)
        for token, text in zip(numbers.token, numbers.text, strict=True):
            head.bias[token] = {1: 0.0, 2: -3.5, 3: -6.0}[len(text)]
        head.bias[end_id] = 2.5
    model.set_output_embeddings(head)
    return model


@pytest.fixture(params=["digits", "groups"])
def setting(
    request: pytest.FixtureRequest, digit_tokenizer: PreTrainedTokenizerFast, group_tokenizer: PreTrainedTokenizerFast
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, NumberTokens, list[int], int]:
    tokenizer = digit_tokenizer if request.param == "digits" else group_tokenizer
    chat = chat_format(tokenizer)
    numbers = number_tokens(tokenizer.get_vocab())
    model = favour_numbers(tiny_model("llama", len(tokenizer)), numbers, chat.end_id)
    return model, tokenizer, numbers, chat.prompt_ids("a number"), chat.end_id


@torch.inference_mode()
def brute_force(
    model: PreTrainedModel, numbers: NumberTokens, prompt: list[int], end_id: int, tokens: int, cut: float
) -> dict[str, float]:
    """Every number of at most so many tokens (prefixes lighter than ``cut`` left out), a forward pass a prefix."""
    found: dict[str, float] = defaultdict(float)
    open_prefixes = [((), "", 0.0)]
    for _ in range(tokens):
        grown = []
        for ids, text, logp in open_prefixes:
            next_logp = torch.log_softmax(model(torch.tensor([[*prompt, *ids]])).logits[0, -1].double(), -1)
            if NUMBER.fullmatch(text):
                found[text] += float(np.exp(logp + float(next_logp[end_id])))
            for token, piece in zip(numbers.token, numbers.text, strict=True):
                if PREFIX.fullmatch(text + piece) and logp + float(next_logp[token]) > np.log(cut):
                    grown.append(((*ids, int(token)), text + piece, logp + float(next_logp[token])))
        open_prefixes = grown
    return dict(found)


def test_open_law_equals_brute_force(setting) -> None:  # type: ignore[no-untyped-def]
    model, _, numbers, prompt, end_id = setting
    tokens = 3 if len(numbers.token) < 100 else 2
    expected = brute_force(model, numbers, prompt, end_id, tokens, cut=1e-3)
    law = open_law(
        Body(model), prompt, numbers, end_id, tolerance=0.0, max_nodes=3000, nodes_per_pass=50, max_tokens=tokens
    )
    found: dict[str, float] = defaultdict(float)
    for text, mass in zip(law.text, law.mass, strict=True):
        found[text] += mass
    heavy = {text for text, mass in expected.items() if mass > 1e-3}
    assert len(heavy) >= 12
    # several token paths may write one number; brute force leaves out those below its cut
    for text in heavy:
        assert found[text] == pytest.approx(expected[text], rel=1e-3, abs=2e-4)
    assert all(NUMBER.fullmatch(text) for text in found)


def test_the_certificate_brackets_the_mass_on_numbers(setting) -> None:  # type: ignore[no-untyped-def]
    model, _, numbers, prompt, end_id = setting
    body = Body(model)
    tolerances = (1.5, 1.0, 0.8)
    laws = [
        open_law(body, prompt, numbers, end_id, tolerance=t, max_nodes=3000, nodes_per_pass=100) for t in tolerances
    ]
    for law, tolerance in zip(laws, tolerances, strict=True):
        assert law.nodes < 3000
        assert law.certificate <= tolerance * law.mass.sum()
    for rough, fine in pairwise(laws):
        assert rough.mass.sum() <= fine.mass.sum() + 1e-9
        assert fine.mass.sum() + fine.certificate <= rough.mass.sum() + rough.certificate + 1e-6


def test_a_node_budget_stops_the_search(setting) -> None:  # type: ignore[no-untyped-def]
    model, _, numbers, prompt, end_id = setting
    law = open_law(Body(model), prompt, numbers, end_id, tolerance=0.0, max_nodes=33, nodes_per_pass=16)
    assert law.nodes == 33
    assert law.passes >= 3  # the first pass has the root alone
    assert law.certificate > 0.01


@pytest.mark.parametrize("rows", [96, 1])
def test_laws_searched_side_by_side_are_those_of_each_prompt_alone(setting, monkeypatch, rows: int) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer, numbers, _, end_id = setting
    chat, body = chat_format(tokenizer), Body(model)
    asked = ["a number", "please, a number between one and a hundred", "a", "", "another number of yours"]
    prompts = [*(chat.prompt_ids(text) for text in asked), [5]]
    how = {"tolerance": 0.93, "max_nodes": 400, "nodes_per_pass": 32}
    alone = [open_law(body, prompt, numbers, end_id, **how) for prompt in prompts]
    assert len({law.passes for law in alone}) > 1  # some end before others
    monkeypatch.setattr(number_search, "TOGETHER", rows)
    together = list(open_laws(body, prompts, numbers, end_id, **how))
    assert len(together) == len(prompts)
    for found, expected in zip(together, alone, strict=True):
        assert (found.nodes, found.passes) == (expected.nodes, expected.passes)
        mass = dict(zip(expected.text, expected.mass, strict=True))
        assert dict(zip(found.text, found.mass, strict=True)) == pytest.approx(mass, rel=1e-4)
        assert found.certificate == pytest.approx(expected.certificate, rel=1e-4)


def test_open_law_agrees_with_100_000_samples(digit_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = chat_format(digit_tokenizer)
    numbers = number_tokens(digit_tokenizer.get_vocab())
    model = favour_numbers(tiny_model("llama", len(digit_tokenizer)), numbers, chat.end_id)
    prompt, n = chat.prompt_ids("a number"), 100_000
    law = open_law(Body(model), prompt, numbers, chat.end_id, tolerance=0.1, max_nodes=4000, nodes_per_pass=100)
    texts = dict(sample(Body(model), chat, [prompt], draws=n, max_new_tokens=12, batch=20_000, seed=3))[0]
    share = sum(bool(NUMBER.fullmatch(t)) for t in texts) / n
    assert law.mass.sum() - 5 * np.sqrt(0.25 / n) < share < law.mass.sum() + law.certificate + 5 * np.sqrt(0.25 / n)
    counts: dict[str, int] = defaultdict(int)
    for text in texts:
        counts[text] += 1
    mass = dict(zip(law.text, law.mass, strict=True))
    common = [t for t, m in mass.items() if m * n >= 20]
    assert len(common) > 30
    observed = np.array([*(counts[t] for t in common), n - sum(counts[t] for t in common)])
    expected = np.array([*(mass[t] for t in common), 1 - sum(mass[t] for t in common)]) * n
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_a_full_frontier_loses_no_mass(setting, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    model, _, numbers, prompt, end_id = setting
    whole = open_law(Body(model), prompt, numbers, end_id, tolerance=0.0, max_nodes=200, nodes_per_pass=50)
    monkeypatch.setattr(number_search, "MAX_FRONTIER", 150)
    cut = open_law(Body(model), prompt, numbers, end_id, tolerance=0.0, max_nodes=200, nodes_per_pass=50)
    assert len(cut.open_mass) < len(whole.open_mass)
    assert cut.mass.sum() + cut.certificate == pytest.approx(whole.mass.sum() + whole.certificate, rel=0.02)
    assert (cut.open_low <= cut.open_high).all()


@given(st.from_regex(r"-?\d{1,4}(\.\d{0,3})?", fullmatch=True), st.text("0123456789", min_size=0, max_size=4))
def test_interval_holds_every_number_that_starts_with_the_prefix(prefix: str, more: str) -> None:
    state = POINT if prefix.endswith(".") else FRACTION if "." in prefix else INTEGER
    whole = prefix + more
    if not NUMBER.fullmatch(whole):
        return
    low, high = interval(prefix, state)
    # the bounds are floats, the number is exact
    slack = Fraction(abs(Fraction(prefix.rstrip(".")))) / 10**12 + Fraction(1, 10**12)
    assert (low == -np.inf or Fraction(low) - slack <= Fraction(whole)) and (
        high == np.inf or Fraction(whole) <= Fraction(high) + slack
    )
    assert low <= stand_in(prefix, state) <= high


def test_intervals_of_the_first_prefixes() -> None:
    assert interval("", START) == (-np.inf, np.inf)
    assert interval("-", SIGN) == (-np.inf, 0.0)
    assert interval("0.4", FRACTION) == pytest.approx((0.4, 0.5))
    assert interval("-0.4", FRACTION) == pytest.approx((-0.5, -0.4))
    assert interval("-3.", POINT) == pytest.approx((-4.0, -3.0))
    assert interval("12", INTEGER) == (12.0, np.inf)
    assert stand_in("12", INTEGER) == 12.0
    assert stand_in("0.4", FRACTION) == pytest.approx(0.45)


def test_number_tokens_follow_the_grammar() -> None:
    numbers = number_tokens(
        {"1": 5, "23": 6, ".5": 7, "-": 8, "x": 9, "1.2.3": 10, "Ġ4": 11, "--": 12, "-7": 13, "٣": 14}
    )
    assert dict(zip(numbers.text, numbers.token.tolist(), strict=True)) == {"1": 5, "23": 6, ".5": 7, "-": 8, "-7": 13}
    step = {t: numbers.next_state[:, i].tolist() for i, t in enumerate(numbers.text)}
    assert step["1"] == [INTEGER, INTEGER, INTEGER, FRACTION, FRACTION]
    assert step[".5"] == [-1, -1, FRACTION, -1, -1]
    assert step["-"] == [SIGN, -1, -1, -1, -1]
    assert step["-7"] == [INTEGER, -1, -1, -1, -1]
