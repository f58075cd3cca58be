"""Aggregates and intervals: by hand, against brute force, and on simulated data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from calibnb.evidence import bands, comparisons, intervals, verdicts
from calibnb.laws import distances

FAMILIES = ["a", "a", "b", "c", "c", "c"]
VALUES = [1.0, 3.0, 10.0, 4.0, 5.0, 6.0]


def test_families_weigh_equally():
    assert intervals.family_means(FAMILIES, VALUES) == {"a": 2.0, "b": 10.0, "c": 5.0}
    assert intervals.family_median(FAMILIES, VALUES) == 5.0
    # More settings of one family change nothing if its mean stays.
    assert intervals.family_median([*FAMILIES, "b", "b"], [*VALUES, 9.0, 11.0]) == 5.0


def test_missing_values_are_left_out_and_counted():
    values = [1.0, math.nan, math.nan, 4.0, 5.0, 6.0]
    means = intervals.family_means(FAMILIES, values)
    assert means["a"] == 1.0 and math.isnan(means["b"])
    assert intervals.family_median(FAMILIES, values) == 3.0
    assert intervals.missing(values) == 2
    assert math.isnan(intervals.family_median(["a"], [math.nan]))
    assert all(math.isnan(x) for x in intervals.family_median_interval(["a"], [math.nan]))
    assert all(math.isnan(x) for x in intervals.family_median_ratio(["a"], [1.0], [math.nan]))


def test_an_infinite_value_does_not_decide_the_median():
    assert intervals.family_median(FAMILIES, [1.0, 3.0, math.inf, 4.0, 5.0, 6.0]) == 5.0
    estimate = intervals.family_median_interval(FAMILIES, [1.0, 3.0, math.inf, 4.0, 5.0, 6.0])
    assert estimate.value == 5.0 and estimate.high == math.inf and not math.isnan(estimate.low)


def test_the_bootstrap_is_seeded_and_holds_its_value():
    one = intervals.family_median_interval(FAMILIES, VALUES, seed=1)
    assert one == intervals.family_median_interval(FAMILIES, VALUES, seed=1)
    assert one.low <= one.value <= one.high
    assert one.low >= 1.0 and one.high <= 10.0
    flat = intervals.family_median_interval(FAMILIES, [2.0] * 6)
    assert flat == (2.0, 2.0, 2.0)


def test_the_order_of_rows_does_not_move_the_median():
    order = [4, 0, 5, 2, 1, 3]
    shuffled = intervals.family_median([FAMILIES[i] for i in order], [VALUES[i] for i in order])
    assert shuffled == intervals.family_median(FAMILIES, VALUES)


def test_resampling_is_hierarchical():
    """Against a plain loop over families, then settings: same law of the resampled median."""
    fast = intervals._resampled_medians(np.array(FAMILIES), np.array([VALUES]), 20_000, 0)[0]
    rng = np.random.default_rng(1)
    groups = [[1.0, 3.0], [10.0], [4.0, 5.0, 6.0]]
    slow = []
    for _ in range(5_000):
        drawn = [groups[i] for i in rng.integers(3, size=3)]
        slow.append(np.median([np.mean(rng.choice(g, size=len(g))) for g in drawn]))
    assert scipy_stats.ks_2samp(fast, slow).pvalue > 0.001
    assert set(np.unique(fast)) >= {1.0, 2.0, 3.0, 10.0}


def test_one_setting_a_family_is_the_plain_bootstrap():
    values = np.arange(24.0)
    families = [f"f{i:02d}" for i in range(24)]
    fast = intervals._resampled_medians(np.array(families), values[None], 20_000, 0)[0]
    rng = np.random.default_rng(1)
    slow = np.median(rng.choice(values, size=(20_000, 24)), axis=1)
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.1)
    assert fast.std() == pytest.approx(slow.std(), rel=0.05)


def test_the_interval_covers_about_as_often_as_it_says():
    """24 families of 3 settings: lognormal family effects with median 1, settings around them."""
    rng = np.random.default_rng(7)
    families = np.repeat([f"f{i:02d}" for i in range(24)], 3)
    hits = 0
    for trial in range(200):
        effect = np.exp(0.5 * rng.normal(size=24))
        values = np.repeat(effect, 3) + 0.05 * rng.normal(size=72)
        low, high = intervals.family_median_interval(families, values, resamples=400, seed=trial)[1:]
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.995


def test_a_ratio_is_paired():
    rng = np.random.default_rng(3)
    families = np.repeat([f"f{i}" for i in range(12)], 2)
    hard = np.exp(rng.normal(size=24))
    # Exactly half everywhere: pairing makes the interval a point, however much the settings differ.
    assert intervals.family_median_ratio(families, hard / 2, hard) == pytest.approx((0.5, 0.5, 0.5))
    noisy = intervals.family_median_ratio(families, hard / 2 * np.exp(0.1 * rng.normal(size=24)), hard)
    alone = intervals.family_median_interval(families, hard)
    assert noisy.low <= noisy.value <= noisy.high
    assert noisy.low > 0.35 and noisy.high < 0.7
    assert noisy.high / noisy.low < alone.high / alone.low


def test_a_ratio_leaves_a_setting_out_of_both():
    ratio = intervals.family_median_ratio(["a", "a", "b"], [1.0, 100.0, 1.0], [2.0, math.nan, 2.0])
    assert ratio == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (137, 200)])
def test_wilson_equals_scipy(successes, n):
    expected = scipy_stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert intervals.wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_knows_nothing_without_trials():
    assert intervals.wilson(0, 0) == (0.0, 1.0)


def test_the_floor_falls_with_the_root_of_the_draws():
    law = scipy_stats.norm(3.5, 3.0)
    ends = law.ppf(0.001), law.ppf(0.999)
    few = bands.perfect_sampler_floor(law, *ends, 100, 200, 1)
    many = bands.perfect_sampler_floor(law, *ends, 1600, 200, 1)
    assert few.mean / many.mean == pytest.approx(4, rel=0.1)
    assert few.low < few.mean < few.high and few.sd > 0
    # |F_n - F| at u is about normal with variance u(1 - u)/n, and the integral of sqrt(u(1 - u)) is pi/8.
    uniform = scipy_stats.uniform()
    floor = bands.perfect_sampler_floor(uniform, 0.001, 0.999, 1000, 300, 2)
    theory = math.sqrt(2 / math.pi / 1000) * (math.pi / 8) / 0.25
    assert floor.mean == pytest.approx(theory, rel=0.06)


def test_the_floor_of_a_coin_is_the_error_of_a_share():
    law = scipy_stats.bernoulli(0.5)
    floor = bands.perfect_sampler_floor(law, 0, 1, 200, 2000, 3)
    expected = np.abs(scipy_stats.binom(200, 0.5).rvs(100_000, random_state=1) / 200 - 0.5).mean() / 0.5
    assert floor.mean == pytest.approx(expected, rel=0.05)


def test_the_floor_takes_counts_that_are_floats():
    law = scipy_stats.binom(25.0, 0.5)  # a printed parameter is a float
    ends = law.ppf(0.001), law.ppf(0.999)
    draws = scipy_stats.binom(25, 0.5).rvs((400, 200), random_state=1)
    expected = np.mean([distances.normalised_w1(sample, np.ones(200), law, *ends) for sample in draws])
    assert bands.perfect_sampler_floor(law, *ends, 200, 400, 2).mean == pytest.approx(expected, rel=0.05)


def test_the_band_of_the_law_itself_is_the_floor_and_a_bias_shows():
    law = scipy_stats.binom(25, 0.5)
    k = np.arange(26)
    ends = law.ppf(0.001), law.ppf(0.999)
    band = bands.sampling_band(k, law.pmf(k), law, *ends, 200, 400, 1)
    floor = bands.perfect_sampler_floor(law, *ends, 200, 400, 2)
    assert band.mean == pytest.approx(floor.mean, rel=0.1)
    shifted = bands.sampling_band(k + 1, law.pmf(k), law, *ends, 200, 400, 1)
    assert shifted.low < distances.normalised_w1(k + 1, law.pmf(k), law, *ends) < shifted.high


def measured(values: list[list[float]]) -> pd.DataFrame:
    """Two families of two settings, a list of four values a seed."""
    labels = [("a", "a(1)"), ("a", "a(2)"), ("b", "b(1)"), ("b", "b(2)")]
    return pd.DataFrame(
        {"split": "unseen", "family": family, "label": label, "seed": seed, "nw1": value}
        for seed, column in enumerate(values)
        for (family, label), value in zip(labels, column, strict=True)
    )


def test_summaries_average_seeds_first():
    frame = measured([[1, 2, 3, 6], [3, 2, 5, math.nan]])
    per_setting = comparisons.over_seeds(frame, ["nw1"])
    assert per_setting["nw1"].tolist() == [2, 2, 4, 6]
    (row,) = comparisons.summarise(frame, ["nw1"], resamples=100, seed=0).to_dict("records")
    assert row["value"] == 3.5 and row["low"] <= 3.5 <= row["high"]
    assert (row["families"], row["settings"], row["missing"]) == (2, 4, 0)
    (lost,) = comparisons.summarise(measured([[1, 2, 3, math.nan]]), ["nw1"], resamples=100, seed=0).to_dict("records")
    assert lost["missing"] == 1 and lost["value"] == 2.25


def test_determined_means_that_less_is_left_open_than_found():
    values = {"a": (2.0, 1.9), "b": (2.0, 2.0), "c": (math.nan, 1.0), "d": (2.0, math.nan), "e": (math.inf, math.inf)}
    summary = pd.DataFrame(
        {"split": split, "variant": "soft", "measure": measure, "value": value}
        for split, pair in values.items()
        for measure, value in zip(("nw1", "nw1_slack"), pair, strict=True)
    )
    found = verdicts.determined_groups(summary, ["split", "variant"])
    assert found[found].index.tolist() == [("a", "soft")] and len(found) == len(values)


def test_comparisons_pair_settings_by_label():
    bottom = measured([[1, 2, 3, 4]])
    top = measured([[2, 4, 6, 8]]).iloc[::-1]
    (row,) = comparisons.compare(top, bottom, "nw1", resamples=100, seed=0).to_dict("records")
    assert (row["value"], row["low"], row["high"]) == (2, 2, 2)


def test_mean_over_items():
    x = np.random.default_rng(0).normal(size=40)
    estimate = intervals.mean_interval([*x, np.nan], resamples=4000, seed=0)
    assert estimate.value == pytest.approx(x.mean())
    half = 1.96 * x.std() / np.sqrt(40)
    assert estimate.low == pytest.approx(x.mean() - half, abs=0.05)
    assert estimate.high == pytest.approx(x.mean() + half, abs=0.05)
    assert intervals.mean_interval([2.0, 2.0], resamples=10, seed=0) == (2, 2, 2)
    assert np.isnan(intervals.mean_interval([np.nan], resamples=10, seed=0)).all()
    alone = intervals.mean_interval([2.0, np.nan], resamples=10, seed=0)  # says nothing about other items
    assert alone.value == 2 and np.isnan([alone.low, alone.high]).all()


@pytest.mark.parametrize("count", [2, 7, 100, 40_000])  # one block, several, one a resample
def test_means_drawn_in_blocks_are_those_drawn_one_by_one(count):
    x, rng = np.random.default_rng(1).normal(size=count), np.random.default_rng(5)
    one_by_one = np.array([x[rng.integers(0, count, count)].mean() for _ in range(700)])
    estimate = intervals.mean_interval(x, resamples=700, seed=5)
    assert estimate[1:] == intervals.percentiles(one_by_one, 0.95)


def test_items_are_averaged_over_seeds_and_compared_in_pairs():
    frame = pd.DataFrame({"item": ["a", "a", "b", "b"], "x": [1.0, 3.0, 5.0, 5.0], "y": [1.0, np.nan, np.nan, np.nan]})
    rows = intervals.summarise_items(frame, ["x", "y"], item="item", resamples=100, seed=0).set_index("measure")
    assert rows.loc["x", ["value", "items", "missing"]].tolist() == [3.5, 2, 0]
    assert rows.loc["y", ["value", "missing"]].tolist() == [1, 1]
    shifted = frame.assign(x=frame["x"] + 2)
    difference = intervals.compare_items(shifted, frame, ["x"], item="item", resamples=100, seed=0)
    assert difference.loc[0, ["value", "low", "high"]].tolist() == [2, 2, 2]


def test_a_law_that_is_all_but_certain_has_no_band() -> None:
    law = scipy_stats.bernoulli(0.0)
    assert np.isnan(bands.perfect_sampler_floor(law, 0, 0, 5, 3, 0)).all()
    assert np.isnan(bands.sampling_band([0.0, 1.0], [0.5, 0.5], law, 0, 0, 5, 3, 0)).all()
