"""Many draws in one answer: reading them, order and repeats against enumeration, measures of known samplers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calibnb.benchmarks.sequences import measures, order, prompts
from calibnb.benchmarks.sequences.prompts import Request, targets
from calibnb.benchmarks.sequences.reading import NO_OUTCOMES, Draw, read, read_order
from calibnb.evidence.shuffles import inversions
from calibnb.laws import distances

WORDS = dict(targets()["coin, heads or tails"].outcomes)
BITS = dict(targets()["coin, 0 or 1"].outcomes)
TEN = [str(number) for number in range(1, 11)]

# --------------------------------------------------------------------------------------------------- what is asked


def test_the_table_has_two_laws_of_each_kind_in_two_wordings() -> None:
    asked = prompts.requests("all", 2, [10])
    kinds = [label.partition(",")[0] for label in targets()]
    expected = ["normal", "uniform", "Poisson", "exponential", "die", "coin"]
    assert kinds == [kind for kind in expected for _ in range(2)]
    assert len(asked) == 24 and len({request.prompt for request in asked}) == 24
    assert asked[0].prompt.startswith(
        "Draw 10 samples from a normal distribution with mean 5 and standard deviation 2."
    )


def test_laws_are_those_that_their_phrases_say() -> None:
    moments = {label: (float(t.law.mean()), float(t.law.std())) for label, t in targets().items()}
    assert moments["normal, mean 5, sd 2"] == pytest.approx((5, 2))
    assert moments["normal, mean 100, sd 15"] == pytest.approx((100, 15))
    assert moments["uniform, 0 to 1"] == pytest.approx((0.5, 1 / math.sqrt(12)))
    assert moments["uniform, 20 to 50"] == pytest.approx((35, 30 / math.sqrt(12)))
    assert moments["Poisson, mean 4"] == pytest.approx((4, 2))
    assert moments["Poisson, mean 1"] == pytest.approx((1, 1))
    assert moments["exponential, mean 2"] == pytest.approx((2, 2))
    assert moments["exponential, rate 3"] == pytest.approx((1 / 3, 1 / 3))
    assert moments["die, 6 sides"] == pytest.approx((3.5, math.sqrt(35 / 12)))
    assert moments["die, 20 sides"] == pytest.approx((10.5, math.sqrt(399 / 12)))
    assert moments["coin, 0 or 1"] == moments["coin, heads or tails"] == pytest.approx((0.5, 0.5))
    assert [(t.low, t.high) for t in targets().values() if t.label.startswith("die")] == [(1, 6), (1, 20)]


def test_few_laws_are_of_different_kinds_and_wordings_take_turns() -> None:
    six = prompts.requests(6, 1, [10, 20])
    assert len({request.target.label.partition(",")[0] for request in six}) == 6
    assert [request.asked for request in six] == [10, 20] * 6
    assert [request.wording for request in six if request.asked == 10] == [0, 1] * 3
    assert all(str(request.asked) in request.prompt for request in six)
    both = prompts.requests(1, 2, [5])
    assert [request.wording for request in both] == [0, 1] and both[0].target is both[1].target


def test_lists_have_ten_entries_that_can_be_told_apart() -> None:
    for entry in prompts.shuffles("all"):
        assert len({word.casefold() for word in entry.entries}) == 10
        assert ", ".join(entry.entries) in entry.prompt
        assert read_order(", ".join(entry.entries), entry.entries) == tuple(range(10))
    assert len(prompts.shuffles(2)) == 2


# ------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5.3, 4.1, -6", [5.3, 4.1, -6]),
        ("5.3 4.1 6", [5.3, 4.1, 6]),
        ("5.3\n4.1\n6\n", [5.3, 4.1, 6]),
        ("5.3; 4.1; 6.", [5.3, 4.1, 6]),
        ("[5.3, 4.1, 6]", [5.3, 4.1, 6]),
        ("(5.3,4.1,6)", [5.3, 4.1, 6]),
        ("{'5.3', \"4.1\"}", [5.3, 4.1]),
        ("5", [5]),
        ("", []),
        ("\n \n", []),
        # numbers as they are written
        (".5, +2, −1.5, 007", [0.5, 2, -1.5, 7]),
        ("1.5e-3, 2E2", [0.0015, 200]),
        ("5.3.2, 1/6, 12%", []),
        ("5. 2. 5. -2.", [5, 2, 5, -2]),
        ("5.3, 4.1, ..., 6.2", [5.3, 4.1, 6.2]),
        # numbering
        ("1. 5.3\n2. 4.1", [5.3, 4.1]),
        ("1) 5.3\n2) 4.1", [5.3, 4.1]),
        ("(1) 5.3\n(2) 4.1", [5.3, 4.1]),
        ("1: 5.3\n2: 4.1", [5.3, 4.1]),
        ("0: 5.3\n1: 4.1", [5.3, 4.1]),
        ("1 - 5.3\n2 - 4.1", [5.3, 4.1]),
        ("#1: 5.3\n#2: 4.1", [5.3, 4.1]),
        ("Sample 1: 5.3\nSample 2: 4.1", [5.3, 4.1]),
        ("**1.** 5.3\n**2.** 4.1", [5.3, 4.1]),
        ("| 1 | 5.3 |\n| 2 | 4.1 |", [5.3, 4.1]),
        ('{"1": 5.3, "2": 4.1}', [5.3, 4.1]),
        ("1. 5.3, 2. 4.1, 3. 6.0", [5.3, 4.1, 6]),
        ("1. 5.3 2. 4.1 3. 6.0", [5.3, 4.1, 6]),
        ("1. 5\n2. 4\n3. 3", [5, 4, 3]),
        ("1. 1\n2. 2\n3. 3", [1, 2, 3]),
        ("1. 5.\n2. 4.\n3. 1.", [5, 4, 1]),
        ("1. 5.3, 4.1\n2. 6.0, 7.2", [5.3, 4.1, 6, 7.2]),
        ("1. 5.3 (near the mean)\n2. 4.1 (below it, by 0.9)\n\nThese are 2 samples.", [5.3, 4.1]),
        ("1. 5.3\n2. 4.1\n3.", [5.3, 4.1]),  # cut off
        ("1. 11.49, 12.63, 14.03", [11.49, 12.63, 14.03]),
        ("Here are 3 samples:\n\n1. 5.3\n2. 4.1\n3. 6", [5.3, 4.1, 6]),
        # draws that look like numbering
        ("1, 2, 3, 4", [1, 2, 3, 4]),
        ("1\n2\n3", [1, 2, 3]),
        ("1. 3. 5. 2", [1, 3, 5, 2]),
        ("1. 2. 2. 4. 4.", [1, 2, 2, 4, 4]),
        ("0.\n1.\n1.\n0.\n", [0, 1, 1, 0]),
        ("1 | 3 | 2 | 6 | 5 | 4", [1, 3, 2, 6, 5, 4]),
        ("3. 1. 6. 2. 5.", [3, 1, 6, 2, 5]),
        # bullets, fences, words and code around the list
        ("- 5.3\n- 4.1\n- -2", [5.3, 4.1, -2]),
        ("* 5.3\n* 4.1", [5.3, 4.1]),
        ("```\n5.3, 4.1\n```", [5.3, 4.1]),
        ("```python\n[5.3, 4.1, 6.0]\n```", [5.3, 4.1, 6]),
        ("samples = [5.3, 4.1, 6.0]", [5.3, 4.1, 6]),
        ("np.array([5.3, 4.1, 6.0])", [5.3, 4.1, 6]),
        ("Here are 3 samples from N(5, 2): 5.3, 4.1, and 6.0. Their mean is 5.1.", [5.3, 4.1, 6]),
        ("5.3, 4.1 and 6.0 are three draws", [5.3, 4.1, 6]),
        ("import numpy as np\nprint(np.random.normal(5, 2, 100))", []),
        ("I cannot draw 10 random values between 20 and 50.", []),
        ("The mean is 5 and the standard deviation is 2.", []),
    ],
)
def test_numbers_are_read(text: str, values: list[float]) -> None:
    assert [draw.value for draw in read(text)] == values


@pytest.mark.parametrize(
    ("text", "outcomes", "values"),
    [
        ("heads, tails, tails", WORDS, [1, 0, 0]),
        ("Heads\nTAILS\nHead", WORDS, [1, 0, 1]),
        ('{"heads", "tails"}', WORDS, [1, 0]),
        ("HTTH", WORDS, [1, 0, 0, 1]),
        ("H T T H", WORDS, [1, 0, 0, 1]),
        ("1. Heads\n2. Tails\n3.", WORDS, [1, 0]),
        ("Toss 1: heads\nToss 2: tails", WORDS, [1, 0]),
        ("Heads, Tails, Tails, Counts", WORDS, [1, 0, 0]),
        ("It is heads.", WORDS, []),
        ("1, 0, 1", WORDS, []),
        ("0.53, 0.2, 0.1", WORDS, []),
        ("1, 0, 1", BITS, [1, 0, 1]),
        ("0110", BITS, [0, 1, 1, 0]),
        ("1. 1\n2. 0\n3. 1", BITS, [1, 0, 1]),
        ("1, 2, 0.5", BITS, [1, 2, 0.5]),
        ("12", BITS, [12]),
    ],
)
def test_words_and_bits_are_read(text: str, outcomes: dict[str, float], values: list[float]) -> None:
    assert [draw.value for draw in read(text, outcomes)] == values


def test_decimals_are_those_that_are_written() -> None:
    assert [draw.decimals for draw in read("5, 5.0, -5.25, .125, 1.5e-3, 2e2")] == [0, 1, 2, 3, 4, 0]


FORMS = {
    "commas": ", ".join,
    "lines": "\n".join,
    "numbered": lambda texts: "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1)),
    "in brackets": lambda texts: f"[{', '.join(texts)}]",
    "in a fence": lambda texts: "```\n" + "\n".join(texts) + "\n```",
    "bullets": lambda texts: "\n".join(f"- {text}" for text in texts),
    "labelled": lambda texts: "\n".join(f"Sample {i}: {text}" for i, text in enumerate(texts, 1)),
    "a table": lambda texts: "\n".join(f"| {i} | {text} |" for i, text in enumerate(texts, 1)),
}


@pytest.mark.parametrize("form", list(FORMS))
@given(values=st.lists(st.decimals(-999, 999, places=2), min_size=3, max_size=30))
def test_any_list_is_read_back_in_any_form(form: str, values: list[float]) -> None:
    texts = [f"{value:.2f}" for value in values]
    assert [draw.value for draw in read(FORMS[form](texts))] == [float(text) for text in texts]


@pytest.mark.parametrize("form", list(FORMS))
@given(values=st.lists(st.integers(0, 20), min_size=3, max_size=30))
def test_whole_numbers_are_no_numbering(form: str, values: list[int]) -> None:
    assert [draw.value for draw in read(FORMS[form](list(map(str, values))))] == values


@given(st.text(alphabet="0123456789.,:;-|()[]{} \n#*_`'\"eEabHTht/%=", max_size=60))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for outcomes in (NO_OUTCOMES, WORDS, BITS):
        assert all(draw.decimals >= 0 and not math.isnan(draw.value) for draw in read(text, outcomes))


@pytest.mark.parametrize(
    ("text", "entries", "places"),
    [
        ("3, 1, 2", ["1", "2", "3"], (2, 0, 1)),
        ("1. 3\n2. 1\n3. 2", ["1", "2", "3"], (2, 0, 1)),
        ("Original: 1, 2, 3. Shuffled: 3, 1, 2", ["1", "2", "3"], (2, 0, 1)),
        ("Fox, cat; DOG.", ["cat", "dog", "fox"], (2, 0, 1)),
        ("1. fox\n2. cat\n3. dog", ["cat", "dog", "fox"], (2, 0, 1)),
        ("fox, cat", ["cat", "dog", "fox"], None),
        ("fox, cat, dog, dog", ["cat", "dog", "fox"], None),
        ("fox, cat, cow", ["cat", "dog", "fox"], None),
        ("3, 1, 0", ["1", "2", "3"], None),
        ("3, 1, 11, 2", ["1", "2", "3"], None),
        ("", ["1", "2", "3"], None),
    ],
)
def test_orders_are_read(text: str, entries: list[str], places: tuple[int, ...] | None) -> None:
    assert read_order(text, entries) == places


# --------------------------------------------------------------------------------------------- order and repeats


@pytest.mark.parametrize(("upper", "lower"), [(1, 2), (2, 2), (3, 2), (4, 3), (1, 6), (4, 4)])
def test_runs_have_mean_0_and_variance_1_over_all_orders(upper: int, lower: int) -> None:
    n = upper + lower
    found = []
    for places in itertools.combinations(range(n), upper):
        kinds = np.zeros(n, bool)
        kinds[list(places)] = True
        found.append(order.runs_z(kinds))
    assert np.mean(found) == pytest.approx(0, abs=1e-12)
    assert np.var(found) == pytest.approx(1)


def test_runs_by_hand() -> None:
    assert order.runs_z([True, True, False, False]) < 0 < order.runs_z([True, False, True, False])
    # Two of each kind: 2, 2, 3, 3, 4, 4 runs over the six orders, mean 3 and variance 2/3.
    assert order.runs_z([True, False, True, False]) == pytest.approx(1 / math.sqrt(2 / 3))
    for certain in ([], [True], [True, True, True], [True, False]):
        assert math.isnan(order.runs_z(certain))


@pytest.mark.parametrize(
    ("values", "upper"),
    [
        ([1, 2, 3, 4], [False, False, True, True]),
        ([3, 1, 2], [True, False, False]),
        ([1, 1, 1, 0], [True, True, True, False]),  # a coin: its median is one of the sides
        ([0, 0, 1, 0], [False, False, True, False]),
        ([5, 5], [False, False]),
        ([], []),
    ],
)
def test_halves(values: list[float], upper: list[bool]) -> None:
    assert order.halves(values).tolist() == upper


@given(st.lists(st.integers(0, 5), min_size=2, max_size=6), st.randoms())
def test_halves_do_not_depend_on_the_order(values: list[int], random: object) -> None:
    kind = dict(zip(values, order.halves(values).tolist(), strict=True))
    turned = values[::-1]
    assert order.halves(turned).tolist() == [kind[value] for value in turned]


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=6).filter(lambda x: len(set(x)) > 1))
def test_the_correlation_is_minus_one_nth_on_average_over_all_orders(values: list[int]) -> None:
    found = [order.lag_one(turned) for turned in itertools.permutations(values)]
    assert np.mean(found) == pytest.approx(-1 / len(values))


def test_the_correlation_of_a_sorted_and_of_a_switching_list() -> None:
    assert order.lag_one(range(100)) > 0.9 and order.lag_one([0, 1] * 50) < -0.9
    assert order.lag_one([3, 1, 2]) == pytest.approx(((1) * (-1) + (-1) * 0) / 2)
    for nothing in ([], [1.0], [2.0, 2.0], [1.0, math.inf]):
        assert math.isnan(order.lag_one(nothing))
    assert order.lag_one([1e300, -1e300, 1e300, -1e300]) == pytest.approx(order.lag_one([1, -1, 1, -1]))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 5))
def test_expected_repeats_and_collisions_equal_the_sum_over_all_samples(weights: list[int], n: int) -> None:
    p = np.array(weights) / sum(weights)
    samples = list(itertools.product(range(len(p)), repeat=n))
    expected = sum(math.prod(p[k] for k in sample) * order.repeats(sample) for sample in samples)
    assert order.expected_repeats(p, n) == pytest.approx(expected, abs=1e-9)
    pairs = itertools.product(range(len(p)), repeat=2)
    assert order.collision(p) == pytest.approx(sum(p[i] * p[j] for i, j in pairs if i == j))


def test_cells_are_the_law_of_rounded_draws() -> None:
    law = stats.norm(5, 2)
    assert order.cells(law, 1).sum() == pytest.approx(1, abs=1e-8)
    assert order.cells(law, 1).max() == pytest.approx(law.cdf(5.05) - law.cdf(4.95))
    rounded = np.round(law.rvs(200_000, random_state=np.random.default_rng(1)), 1)
    _, counts = np.unique(rounded, return_counts=True)
    assert order.collision(order.cells(law, 1)) == pytest.approx(float(((counts / 200_000) ** 2).sum()), rel=0.02)
    np.testing.assert_allclose(order.cells(stats.randint(1, 7), 3), np.full(6, 1 / 6))
    assert len(order.cells(law, 9)) == len(order.cells(law, order.FINEST))


def test_pairs_that_are_alike() -> None:
    assert order.alike("aab") == pytest.approx(1 / 3)
    assert order.alike("aaa") == 1 and order.alike("abc") == 0
    assert math.isnan(order.alike("a")) and math.isnan(order.alike(""))


# ------------------------------------------------------------------------------------------------------ measures


def draws(*answers: Sequence[float], decimals: int = 0) -> list[list[Draw]]:
    return [[Draw(value, decimals) for value in answer] for answer in answers]


def test_measures_of_draws_by_hand() -> None:
    die = targets()["die, 6 sides"]
    found = measures.draws_measures(draws([1, 2, 1, 6], [1, 2, 1], [], [3, 3, 3, 3, 9]), die, 4)
    assert (found["given"], found["as_many"], found["draws"]) == (11 / 16, 1 / 4, 11)
    assert found["in_lists"] == found["given"]
    pooled = [1, 2, 1, 6, 1, 2, 1, 3, 3, 3, 3]  # what is beyond the four asked for is left out
    assert found["nw1"] == distances.normalised_w1(pooled, np.ones(11), die.law, 1, 6)
    assert found["nw1_perfect"] == measures.floor("die, 6 sides", 11) > 0
    assert found["repeats"] == (1 + 1 + 3) / 11
    expected = [order.expected_repeats(np.full(6, 1 / 6), n) for n in (4, 3, 4)]
    assert found["repeats_perfect"] == pytest.approx(sum(expected) / 11)
    assert found["lag1_perfect"] == pytest.approx((-1 / 4 - 1 / 3) / 2)  # all equal has no correlation
    assert found["lag1"] == pytest.approx((order.lag_one([1, 2, 1, 6]) + order.lag_one([1, 2, 1])) / 2)
    assert (found["same_first"], found["same_list"]) == (pytest.approx(1 / 3), 0)
    assert found["same_first_perfect"] == pytest.approx(1 / 6)
    assert found["same_list_perfect"] == pytest.approx(6.0**-4)


def test_without_draws_measures_do_not_exist() -> None:
    found = measures.draws_measures([[], []], targets()["die, 6 sides"], 4)
    assert (found["given"], found["as_many"], found["draws"]) == (0, 0, 0)
    assert all(math.isnan(found[name + end]) for name in measures.OF_DRAWS for end in ("", "_perfect"))
    single = measures.draws_measures(draws([3], [2], [1, 6]), targets()["die, 6 sides"], 4)
    assert (single["given"], single["in_lists"]) == (4 / 12, 2 / 12)  # one number is no list
    assert all(math.isnan(single[name]) for name in ("runs_z", "runs_z_perfect", "same_list", "same_list_perfect"))
    one = measures.draws_measures(draws([1, 2, 3]), targets()["die, 6 sides"], 3)
    assert math.isnan(one["same_first"]) and math.isnan(one["same_list_perfect"]) and one["nw1"] >= 0


@pytest.mark.parametrize("label", ["normal, mean 5, sd 2", "Poisson, mean 4", "coin, 0 or 1", "exponential, rate 3"])
def test_a_perfect_sampler_gets_what_is_expected_of_it(label: str) -> None:
    target, rng = targets()[label], np.random.default_rng(3)
    rows = []
    for _ in range(60):
        # Coarser, rounding would add to the nW1 of narrow laws.
        sample = np.round(target.law.rvs(size=(12, 10), random_state=rng), 2)
        rows.append(measures.draws_measures(draws(*sample.tolist(), decimals=2), target, 10))
    for name in measures.OF_DRAWS:
        values = np.array([row[name] for row in rows])
        aim = np.mean([row[f"{name}_perfect"] for row in rows])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert values.mean() == pytest.approx(aim, abs=4 * error + 0.02 * abs(aim) + 1e-6), name


def test_a_copied_and_a_sorted_list_are_seen() -> None:
    uniform = targets()["uniform, 0 to 1"]
    found = measures.draws_measures(draws(*[[i / 10 for i in range(10)]] * 6, decimals=1), uniform, 10)
    assert found["same_list"] == found["same_first"] == 1 and found["repeats"] == 0 < found["repeats_perfect"]
    assert found["runs_z"] < -2 and found["lag1"] > 0.5
    assert found["nw1"] < 0.25  # the law itself is close: order tells them apart


def test_displacement_of_uniform_permutations() -> None:
    orders = list(itertools.permutations(range(5)))
    assert measures.displacement(orders) == pytest.approx((5**2 - 1) / (3 * 5))
    assert measures.displacement([(0, 1, 2)]) == 0 and math.isnan(measures.displacement([]))


# ----------------------------------------------------------------------------------------------- asking for them


def test_a_run_asks_for_every_length_with_room_for_it() -> None:
    rooms: list[tuple[int, int]] = []

    def ask(asked: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        rooms.append((len(asked), max_new_tokens))
        return [["1, 2, 3", "1. 4\n2. 2", "no"][:draws] for _ in asked]

    requests: list[Request] = [r for r in prompts.requests("all", 1, [3, 5]) if r.target.label == "die, 6 sides"]
    rows, pooled, texts = measures.run_draws(ask, requests, answers=3, tokens_per_draw=7)
    assert rooms == [(1, 21), (1, 35)]
    assert rows["given"].tolist() == [pytest.approx(5 / 9), pytest.approx(5 / 15)]
    assert pooled[pooled["asked"] == 3][["value", "count"]].to_numpy().tolist() == [[1, 1], [2, 2], [3, 1], [4, 1]]
    assert texts["read"].tolist() == ["[1.0, 2.0, 3.0]", "[4.0, 2.0]", "[]"] * 2
    assert set(measures.MEASURES) <= set(rows.columns)


def test_a_run_without_any_draws_leaves_whole_tables() -> None:
    def ask(asked: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        return [["I cannot"] * draws for _ in asked]

    rows, pooled, texts = measures.run_draws(ask, prompts.requests(1, 1, [3]), answers=2, tokens_per_draw=7)
    assert rows["given"].tolist() == [0] and len(texts) == 2
    assert pooled.empty and pooled["count"].dtype == int and pooled["value"].dtype == float
    shuffled, _ = measures.run_shuffles(ask, prompts.shuffles(1), answers=2, tokens_per_draw=7)
    assert shuffled["valid"].tolist() == [0] and shuffled["displacement"].isna().all()


def test_a_run_of_shuffles() -> None:
    def ask(asked: Sequence[str], *, draws: int, max_new_tokens: int) -> list[list[str]]:
        assert max_new_tokens == 80
        return [[", ".join(TEN), ", ".join(TEN[::-1]), "1, 2"][:draws] for _ in asked]

    (one,) = [entry for entry in prompts.shuffles("all") if entry.label == "one to ten"]
    rows, texts = measures.run_shuffles(ask, [one], answers=3, tokens_per_draw=8)
    row = rows.iloc[0]
    assert row["valid"] == pytest.approx(2 / 3) and row["unchanged"] == 0.5
    assert row["inversions"] == pytest.approx(inversions(range(10)[::-1]) / 45 / 2) == 0.5
    assert row["displacement"] == pytest.approx(np.mean([0, 5.0]) / 3.3) and row["displacement_perfect"] == 1
    assert row["first_tv"] == pytest.approx(0.8) and texts["read"].tolist()[2] == "null"
    assert set(measures.OF_SHUFFLES) <= set(rows.columns)
