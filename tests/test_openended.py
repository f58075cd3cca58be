"""Open-ended generation: answers as strings, counts against brute force, the exact law over members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from calibnb.benchmarks.openended import categories, measures
from calibnb.benchmarks.openended.categories import Category
from calibnb.laws import parsing
from calibnb.models import chatformat
from calibnb.trees.attention import Body

SEASON = Category("season", "a season", (("Spring",), ("Summer",), ("Autumn", "Fall"), ("Winter",)))
WORD = Category("word", "a word", ())


def test_the_table_has_the_102_categories_of_the_protocol() -> None:
    table = categories.table()
    assert len(table) == 102
    assert {c.prompt.split()[0] for c in table.values()} == {"Think", "Choose", "Name", "Pick"}
    assert len({c.prompt for c in table.values()}) == 102
    sizes = {name: len(c.members) for name, c in table.items() if c.members}
    expected = {"weekday": 7, "month": 12, "season": 4, "planet": 8, "chemical element": 118, "constellation": 88}
    assert {name: sizes[name] for name in expected} == expected
    assert sizes["country"] == 193 + 2  # members and observers of the United Nations
    assert set(sizes) == {*expected, "country", "vitamin", "capital city"}


def test_no_two_members_share_a_spelling() -> None:
    for category in categories.table().values():
        for forms in (measures.fold, lambda name: name):
            names = [form for member in category.members for form in {forms(name) for name in member}]
            assert [name for name, n in Counter(names).items() if n > 1] == []
        exact = [form for member in category.members for form in parsing.spellings(member)]
        assert len(exact) == len(set(exact))


@pytest.mark.parametrize(
    ("text", "plain", "folded"),
    [
        ("Paris", "Paris", "paris"),
        ("  paris.\n", "paris.", "paris"),
        ("\n\n'New  York'\nis big", "New York", "new york"),
        ('"Mars"', "Mars", "mars"),
        ("“Mars”.", "“Mars”.", "mars"),
        ('**"Mars."**', '**"Mars."**', "mars"),
        ('"The Moon".', '"The Moon".', "moon"),
        ("**Mars**.", "**Mars**.", "mars"),
        ("**Mars.**", "**Mars.**", "mars"),
        ("The Gambia", "The Gambia", "gambia"),
        ("a dog", "a dog", "dog"),
        ("A", "A", "a"),
        ("rock 'n' roll", "rock 'n' roll", "rock 'n' roll"),
        ("'", "'", "'"),
        ('""', "", ""),
        (" \n\t", "", ""),
        ("", "", ""),
    ],
)
def test_answers_as_strings(text: str, plain: str, folded: str) -> None:
    assert measures.normalise(text) == plain
    assert measures.fold(text) == folded


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda p: sum(p) > 1e-3), st.floats(0.01, 0.99))
def test_support_size_is_the_smallest_set_that_reaches_the_mass(raw: list[float], level: float) -> None:
    p = np.array(raw) / sum(raw)
    (size,) = measures.support_sizes(p, [level])
    heaviest = np.sort(p)[::-1]
    assert heaviest[:size].sum() >= level - 1e-9
    assert size == 1 or heaviest[: size - 1].sum() < level


def test_support_size_of_the_uniform_law() -> None:
    assert measures.support_sizes(np.full(20, 0.05), measures.LEVELS).tolist() == [1, *range(1, 20), 20]


@settings(max_examples=30, deadline=None)  # brute force takes its time
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3))
def test_coverage_equals_the_mean_over_all_subsets(counts: list[int], empty: int) -> None:
    answers: list[int | None] = [i for i, c in enumerate(counts) for _ in range(c)]
    answers += [None] * empty
    found = measures.coverage(counts, len(answers))
    for n in range(1, len(answers) + 1):
        sizes = [len({a for a in subset if a is not None}) for subset in combinations(answers, n)]
        assert found[n - 1] == pytest.approx(np.mean(sizes), abs=1e-9)


def test_coverage_of_nothing_is_zero() -> None:
    assert measures.coverage([], 5).tolist() == [0, 0, 0, 0, 0]


def test_sampled_measures_by_hand() -> None:
    texts = ["Spring", "spring.", "Fall", "autumn", "", "Monsoon", '"Summer"', "Summer\nbecause"]
    m = measures.sampled_measures(texts, SEASON)
    assert (m["empty"], m["unique"], m["unique_folded"]) == (1, 6, 5)
    assert m["unique_fraction"] == 6 / 8
    assert m["top"] == "spring (2), summer (2), fall (1), autumn (1), monsoon (1)"
    assert (m["valid_share"], m["valid_unique"], m["valid_unique_fraction"]) == (6 / 8, 3, 3 / 4)
    open_ended = measures.sampled_measures(texts, WORD)
    assert np.isnan(open_ended["valid_unique"])
    nothing = measures.sampled_measures(["", " "], SEASON)
    assert (nothing["empty"], nothing["unique"], nothing["top_share"], nothing["valid_unique"]) == (2, 0, 0, 0)


def test_member_law_equals_products_along_paths(
    any_model: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat, body = chatformat.chat_format(digit_tokenizer), Body(any_model)
    got = measures.member_law(body, chat, SEASON)
    prompt = chat.prompt_ids(SEASON.prompt)
    for place, member in enumerate(SEASON.members):
        mass = 0.0
        for form in parsing.spellings(member):
            answer = [*chat.answer_ids([form])[0], chat.end_id]
            with torch.no_grad():
                logits = any_model(torch.tensor([prompt + answer])).logits[0].double()
            logp = logits.log_softmax(-1)
            mass += float(np.exp(sum(float(logp[len(prompt) - 1 + i, t]) for i, t in enumerate(answer))))
        assert got[place] == pytest.approx(mass, rel=1e-4)


def test_exact_measures_of_laws_with_known_values() -> None:
    uniform = measures.closed_measures(np.full(4, 0.1))
    assert uniform["member_mass"] == pytest.approx(0.4)
    assert (uniform["uniform_tv"], uniform["effective_members"]) == (pytest.approx(0, abs=1e-12), pytest.approx(4))
    one = measures.closed_measures(np.array([0.5, 0, 0, 0]))
    assert (one["uniform_tv"], one["effective_members"], one["top_member"]) == (0.75, 1, 1)


def test_first_token_law(any_model: PreTrainedModel, digit_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = chatformat.chat_format(digit_tokenizer)
    frame = measures.run_exact(Body(any_model), chat, [SEASON, WORD]).set_index("category")
    with torch.no_grad():
        law = any_model(torch.tensor([chat.prompt_ids("a word")])).logits[0, -1].double().softmax(-1).numpy()
    row = frame.loc["word"]
    assert row["entropy"] == pytest.approx(-(law * np.log(law)).sum(), rel=1e-4)
    heaviest = np.cumsum(np.sort(law)[::-1])
    assert row["support_0.90"] == np.searchsorted(heaviest, 0.9) + 1
    assert np.isnan(row["member_mass"]) and frame.loc["season", "members"] == 4


def test_sampled_run_has_a_row_a_category_and_its_curve() -> None:
    def ask(prompts: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        return [["Winter", "Winter", "x"][:draws] for _ in prompts]

    rows, curves = measures.run_sampled(ask, [SEASON, WORD], draws=3, max_new_tokens=4)
    assert rows["unique"].tolist() == [2, 2]
    assert curves.groupby("category")["distinct"].last().tolist() == pytest.approx([2, 2])
    assert curves.groupby("category")["distinct"].first().tolist() == pytest.approx([1, 1])
