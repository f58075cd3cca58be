"""The trie against a dictionary of prefixes, and its estimators against sums over all answers."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from calibnb.models import chatformat
from calibnb.trees.trie import Trie, ancestors_of, build, draw, objective

END = 9
answers_strategy = st.lists(st.lists(st.integers(0, 4), max_size=5).map(tuple), min_size=1, max_size=25, unique=True)


def weights_for(answers: list[tuple[int, ...]], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(len(answers)))


def prefix_of(trie: Trie, node: int) -> tuple[int, ...]:
    tokens: list[int] = []
    while node > 0:
        tokens.append(int(trie.token[node]))
        node = int(trie.parent[node])
    return tuple(reversed(tokens))


@settings(deadline=None)
@given(answers_strategy, st.integers(0, 99))
def test_build_equals_a_dictionary_of_prefixes(answers: list[tuple[int, ...]], seed: int) -> None:
    p = weights_for(answers, seed)
    expected: dict[tuple[int, ...], float] = defaultdict(float)
    for answer, mass in zip(answers, p, strict=True):
        closed = (*answer, END)
        for k in range(len(closed) + 1):
            expected[closed[:k]] += mass
    trie = build(answers, p, END)
    found = {prefix_of(trie, v): v for v in range(len(trie.token))}
    assert set(found) == set(expected)
    for prefix, v in found.items():
        assert trie.mass[v] == pytest.approx(expected[prefix], abs=1e-12)
        assert trie.depth[v] == len(prefix)
        assert trie.is_end[v] == (prefix[-1:] == (END,))
        # the subtree slice holds exactly the prefixes that continue this one
        inside = {u for q, u in found.items() if q[: len(prefix)] == prefix}
        assert set(range(v, trie.end[v])) == inside
    for i, answer in enumerate(answers):
        nodes = trie.path[i][trie.path[i] >= 0]
        assert [prefix_of(trie, v) for v in nodes] == [(*answer, END)[: k + 1] for k in range(len(answer) + 1)]
        assert trie.leaf[i] == nodes[-1]


@settings(deadline=None)
@given(answers_strategy, st.integers(0, 99))
def test_targets_multiply_to_the_law(answers: list[tuple[int, ...]], seed: int) -> None:
    p = weights_for(answers, seed)
    trie = build(answers, p, END)
    np.testing.assert_allclose(np.exp(trie.along(np.log(trie.targets))), p, rtol=1e-9)
    children = np.zeros(len(trie.token))
    np.add.at(children, trie.parent[1:], trie.targets[1:])
    np.testing.assert_allclose(children[~trie.is_end], 1.0, rtol=1e-12)


def test_equal_answers_add_up_and_bad_answers_are_refused() -> None:
    trie = build([(1,), (1,), (2,)], [0.25, 0.25, 0.5], END)
    assert len(trie.token) == 5
    np.testing.assert_allclose(sorted(trie.mass[1:]), [0.5] * 4)
    with pytest.raises(ValueError, match="at least one"):
        build([], [], END)
    with pytest.raises(ValueError, match="end-of-turn token 9"):
        build([(1, END)], [1.0], END)


def model_for(trie: Trie, seed: int) -> np.ndarray:
    """A made-up model: log q(child | parent) with some mass outside the trie, ``[n]``."""
    q = np.random.default_rng(seed).uniform(0.05, 1.0, len(trie.token))
    total = np.full(len(trie.token), 0.3)  # what the model puts outside
    np.add.at(total, trie.parent[1:], q[1:])
    logq = np.zeros(len(trie.token))
    logq[1:] = np.log(q[1:] / total[trie.parent[1:]])
    return logq


def loss_of(trie: Trie, logq: np.ndarray, counts: np.ndarray, estimator: str, average: str = "tokens") -> float:
    o = objective(trie, counts, estimator, average)
    by_edge = {(int(trie.parent[v]), int(trie.token[v])): logq[v] for v in range(1, len(trie.token))}
    scored = np.array([by_edge[int(a), int(b)] for a, b in zip(o.node, o.token, strict=True)])
    return float(-(o.weight * scored).sum() - o.entropy)


@settings(deadline=None)
@given(answers_strategy, st.integers(0, 99))
def test_the_three_estimators_expect_the_same_divergence(answers: list[tuple[int, ...]], seed: int) -> None:
    p = weights_for(answers, seed)
    trie = build(answers, p, END)
    logq = model_for(trie, seed)
    kl = float(np.sum(p * (np.log(p) - trie.along(logq))))
    entropy = float(-np.sum(p * np.log(p)))
    one = np.eye(len(answers))
    assert loss_of(trie, logq, one[0], "trie") == pytest.approx(kl, abs=1e-9)
    paths = sum(w * loss_of(trie, logq, one[i], "paths") for i, w in enumerate(p))
    samples = sum(w * loss_of(trie, logq, one[i], "samples") for i, w in enumerate(p))
    assert paths == pytest.approx(kl, abs=1e-9)
    assert samples - entropy == pytest.approx(kl, abs=1e-9)


@settings(deadline=None)
@given(answers_strategy, st.integers(0, 99))
def test_packed_draws_equal_the_mean_over_single_draws(answers: list[tuple[int, ...]], seed: int) -> None:
    p = weights_for(answers, seed)
    trie = build(answers, p, END)
    logq = model_for(trie, seed)
    counts = draw(p, 12, np.random.default_rng(seed), stratified=False)
    one = np.eye(len(answers))
    for estimator in ("paths", "samples"):
        for average in ("tokens", "path"):
            single = sum(n * loss_of(trie, logq, one[i], estimator, average) for i, n in enumerate(counts) if n) / 12
            assert loss_of(trie, logq, counts, estimator, average) == pytest.approx(single, abs=1e-9)


def test_the_path_average_divides_by_the_length_of_each_answer() -> None:
    trie = build([(1,), (2, 3, 4)], [0.5, 0.5], END)
    logq = model_for(trie, 0)
    for i, length in ((0, 2), (1, 4)):
        one = np.eye(2)[i]
        whole = loss_of(trie, logq, one, "samples")
        assert loss_of(trie, logq, one, "samples", "path") == pytest.approx(whole / length)
    with pytest.raises(ValueError, match="average must be 'tokens'"):
        objective(trie, [1, 1], "trie", "path")


@settings(deadline=None)
@given(answers_strategy, st.data())
def test_ancestors_close_a_set_of_nodes_upwards(answers: list[tuple[int, ...]], data: st.DataObject) -> None:
    trie = build(answers, weights_for(answers, 0), END)
    nodes = data.draw(st.lists(st.integers(0, len(trie.token) - 1), unique=True))
    expected = {0}
    for v in nodes:
        while v > 0:
            expected.add(v)
            v = int(trie.parent[v])
    assert set(np.flatnonzero(ancestors_of(trie, np.array(nodes, np.int64)))) == expected


def test_stratified_draws_keep_each_probability_and_hardly_vary() -> None:
    p = np.array([0.11, 0.29, 0.6])
    n, repeats = 10, 4000
    rng = np.random.default_rng(5)
    strata = np.array([draw(p, n, rng, stratified=True) for _ in range(repeats)])
    single = np.array([draw(p, n, rng, stratified=False) for _ in range(repeats)])
    assert (strata.sum(axis=1) == n).all()
    for counts, variance in ((strata, None), (single, n * p * (1 - p))):
        error = counts.std(axis=0) / np.sqrt(repeats)
        assert (np.abs(counts.mean(axis=0) - n * p) < 5 * error + 1e-12).all()
        if variance is not None:
            np.testing.assert_allclose(counts.var(axis=0), variance, rtol=0.15)
    # every stratum boundary lies in one answer or between two, so a count is off by less than one from n p at each side
    assert (np.abs(strata - n * p) < 2).all()


def check_against_dictionary(tokenizer: PreTrainedTokenizerBase, values: list[float]) -> None:
    """The trie of numbers as a real chat format writes them, against a dictionary of its prefixes."""
    chat = chatformat.chat_format(tokenizer)
    strings = sorted({f"{value:.{decimals}f}" for value in values for decimals in (0, 2, 5)})
    answers = [tuple(ids) for ids in chat.answer_ids(strings)]
    p = weights_for(answers, 3)
    expected: dict[tuple[int, ...], float] = defaultdict(float)
    for answer, mass in zip(answers, p, strict=True):
        closed = (*answer, chat.end_id)
        for k in range(len(closed) + 1):
            expected[closed[:k]] += mass
    trie = build(answers, p, chat.end_id)
    found = {prefix_of(trie, v): float(trie.mass[v]) for v in range(len(trie.token))}
    assert found == pytest.approx(expected, abs=1e-12)
    leaves = [prefix_of(trie, int(v))[:-1] for v in trie.leaf]
    assert [chat.decode(leaf) for leaf in leaves] == strings


VALUES = [*np.random.default_rng(1).normal(0, 300, 40).tolist(), 0.0, 1e6]


def test_numbers_of_small_tokenizers(any_tokenizer: PreTrainedTokenizerBase) -> None:
    check_against_dictionary(any_tokenizer, VALUES)


def test_numbers_of_real_tokenizers(real_tokenizer: PreTrainedTokenizerBase) -> None:
    check_against_dictionary(real_tokenizer, VALUES)
