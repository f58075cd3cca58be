"""Figures: what is drawn is what was given, in the fixed colours, opaque, and in equal bytes."""

from __future__ import annotations

import io
import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from calibnb.book import style as book_style
from calibnb.book import tables
from calibnb.book.figures import answers, curves, drawings, examples, exchange, fidelity, judged, learning, points
from calibnb.evidence import results
from calibnb.laws import distances

mpl.use("Agg")
VARIANTS = ["base", "format", "soft", "hard"]
SPLITS = ["validation", "unseen", "held_out"]


@pytest.fixture(autouse=True)
def style():
    book_style.use_style()


def png(figure: Figure, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def headline_frame():
    rng = np.random.default_rng(0)
    rows = [
        {"split": split, "variant": variant, "value": value, "low": 0.8 * value, "high": 1.3 * value}
        | {"settled": variant != "base"}
        for split in SPLITS
        for variant, value in zip(VARIANTS, 1 + rng.random(4), strict=True)
    ]
    return pd.DataFrame(rows)


def operations_frame():
    return pd.DataFrame({"kind": ["Fine-tuning", "Mixing", "Perplexity"], "tflop": [120.0, 60.0, 20.0]})


def family_frame():
    rng = np.random.default_rng(1)
    families = ["gaussian", "beta", "negative_binomial", "cauchy"]
    rows = [
        {"family": f, "variant": v, "value": float(rng.lognormal()), "low": math.nan, "high": math.nan}
        for f in families
        for v in VARIANTS
    ]
    return pd.DataFrame(rows)


def overlays():
    normal, coin = stats.norm(1, 2), stats.binom(5, 0.4)
    return [
        curves.Overlay(
            "gaussian(mu=1, sigma=2)",
            normal,
            normal.ppf(0.001),
            normal.ppf(0.999),
            {"soft": ([0, 1, 90], [1, 2, 1])},
        ),
        curves.Overlay("binomial(n=5, p=0.4)", coin, 0, 5, {"soft": ([1, 2.5], [0.1, 0.1]), "base": ([], [])}),
    ]


def some_examples():
    distances = {"base": math.nan, "soft": 0.5, "hard": 0.25}
    return [examples.Example("in range", setting, distances) for setting in overlays()]


def verdict_frame():
    rows = [("b", "open", 3), ("b", "supported", 2), ("a", "not comparable", 1), ("a", "supported", 4)]
    return pd.DataFrame(rows, columns=["chapter", "verdict", "count"])


def said_frame():
    rows = [(v, p, q + 0.01, q, q + 0.05) for v, q in (("soft", 0.4), ("base", 0.6)) for p in (0.9, 0.1, 0.5)]
    return pd.DataFrame(rows, columns=["variant", "asked", "value", "low", "high"])


def log_frame():
    steps = np.arange(1, 31)
    checked = np.where(steps % 10 == 0, 3.0 / steps, np.nan)
    return pd.concat(
        pd.DataFrame({"method": m, "seed": s, "prompts": 16 * steps, "loss": 9 / steps, "validation": checked})
        for m in ("soft", "hard")
        for s in (11, 12)
    )


def all_figures() -> dict[str, Figure]:
    checkpoints = pd.concat(headline_frame().assign(prompts=p) for p in (100, 200, 400))
    parts = pd.concat(headline_frame().assign(part=p) for p in ("format", "shape"))
    sampled = pd.DataFrame(
        {
            "variant": ["soft", "base"],
            "exact": [0.2, 2.0],
            "expected": [0.22, 2.0],
            "low": [0.18, 1.8],
            "high": [0.3, 2.2],
            "sampled": [0.25, 1.9],
        }
    )
    grid = pd.DataFrame(
        {
            "family": ["gaussian"] * 3 + ["poisson"],
            "split": ["train", "validation", "unseen", "held_out"],
            "selected": [False, False, True, True],
            "x_name": ["mu", "mu", "mu", "lambda"],
            "x": [0.0, 1.0, 3.5, 4.0],
            "y_name": ["sigma"] * 3 + [""],
            "y": [1.0, 2.0, 3.0, 0.0],
        }
    )
    search = pd.DataFrame({"variant": ["soft"] * 3, "nodes": [64, 128, 256], "certificate": [0.5, 0.1, 0.01]})
    return {
        "headline": fidelity.headline(headline_frame(), variants=VARIANTS, splits=SPLITS),
        "families": points.per_family_dots(family_frame(), variants=VARIANTS),
        "kl": fidelity.kl_split(parts, variants=VARIANTS, splits=SPLITS[1:]),
        "sampled": fidelity.exact_vs_sampled(sampled, variants=["soft", "base"], draws=200),
        "overlay": curves.overlay_grid(overlays(), variants=["base", "soft"]),
        "density": curves.density_grid(overlays(), variants=["base", "soft"]),
        "mixing": curves.said_against_asked(said_frame(), variants=VARIANTS),
        "grid": curves.grid_scatter(grid),
        "loss": learning.loss_curves(log_frame(), methods=["soft", "hard"]),
        "learning": learning.learning_curves(checkpoints, variants=VARIANTS, splits=SPLITS),
        "operations": learning.operations(operations_frame(), training="Fine-tuning"),
        "rows": learning.packed_rows([[1, 1, 2, 0], [1, 2, 2, 2]], ["padding", "prompt", "answer"]),
        "trie": drawings.trie_drawing(
            [-1, 0, 1, 1, 0],
            [0, 1, 2, 2, 1],
            [1, 0.7, 0.3, 0.4, 0.3],
            ["^", "1", ".", "$", "2"],
            [1, 0.7, 0.43, 0.57, 0.3],
        ),
        "examples": examples.examples(some_examples(), before="base", after=["soft", "hard"]),
        "judged": judged.verdict_bars(verdict_frame()),
        "mask": drawings.mask_picture(np.tri(4), list("abcd")),
        "measures": points.measures(
            headline_frame().rename(columns={"split": "measure"}), variants=VARIANTS, labels=dict.fromkeys(SPLITS, "x")
        ),
        "letters": answers.letter_bars(
            pd.DataFrame(
                {"variant": v, "letter": k, "kind": kind, "value": x, "low": x / 2, "high": x * 1.5}
                for v, x in (("base", 0.25), ("soft", math.nan))
                for kind in ("counted", "exact")
                for k in "ABCD"
            ),
            variants=["base", "soft"],
        ),
        "letters alone": answers.letter_bars(
            pd.DataFrame(
                {"variant": "soft", "letter": list("ABCD"), "kind": "exact", "value": 0.25, "low": 0.2, "high": 1}
            ),
            variants=["soft"],
            label="probability",
        ),
        "strip": answers.strip(
            pd.DataFrame({"group": ["same", "same", "different"], "value": [0.9, 0.8, 0.1]}),
            groups=["same", "different"],
            label="x",
            reference=0.5,
        ),
        "curves": answers.curves(
            checkpoints[checkpoints["split"] == SPLITS[0]],
            variants=VARIANTS,
            x="prompts",
            xlabel="prompts",
            ylabel="y",
            log=True,
            diagonal=True,
        ),
        "search": drawings.certificate_curve(search, variants=["soft"], tolerance=0.02),
    }


def test_every_figure_is_labelled_opaque_and_reproducible():
    once, again = all_figures(), all_figures()
    for name, figure in once.items():
        assert figure.get_facecolor() == (1, 1, 1, 1), name
        assert png(figure, format="png") == png(again[name], format="png"), name
        no_date = {"format": "svg", "metadata": {"Date": None}}
        assert png(figure, **no_date) == png(again[name], **no_date), name
        if name == "trie":
            continue
        for axis in figure.axes:
            if not axis.get_visible():
                continue
            named = axis.get_xlabel() or (figure._supxlabel and figure._supxlabel.get_text()) or axis.get_title()
            assert named, name


def test_the_trade_off_joins_what_no_other_variant_beats():
    able = {"base": 0.5, "format": 0.1, "soft": 0.2, "hard": 0.15}
    error = {"base": 3.0, "format": 1.5, "soft": 0.5, "hard": 0.7}
    rows = [
        {"variant": v, "measure": m, "value": values[v], "low": values[v] * 0.9, "high": values[v] * 1.1}
        for m, values in (("score", able), ("nW1", error))
        for v in VARIANTS
    ]
    figure = exchange.tradeoff(
        pd.DataFrame(rows), variants=VARIANTS, x="score", xlabel="right", panels={"nW1": "unseen"}, ylabel="nW1"
    )
    (axis,) = figure.axes
    (front,) = [line for line in axis.lines if line.get_color() == "#BDBDBD"]
    assert front.get_xydata().tolist() == [[0.2, 0.5], [0.5, 3.0]]
    assert axis.get_title() == "unseen"


def test_over_draws_the_level_and_joins_one_variant_a_place():
    values = {"base": (np.nan, 0.5), "soft": (0.0, 0.2), "near": (0.0, 0.4), "hard": (0.5, 0.3)}
    rows = [
        {"variant": v, "share": share, "measure": "score", "value": y, "low": y - 0.1, "high": y + 0.1}
        for v, (share, y) in values.items()
    ]
    rows += [row | {"measure": "difference"} for row in rows if row["variant"] != "base"]
    figure = exchange.over(
        pd.DataFrame(rows),
        variants=["hard", "soft", "near"],
        x="share",
        xlabel="share",
        panels={"score": "right answers", "difference": "difference"},
        level="base",
    )
    score, difference = figure.axes
    (line,) = [line for line in score.lines if line.get_color() == "#BDBDBD"]
    assert line.get_xydata().tolist() == [[0.0, 0.2], [0.5, 0.3]]
    (level,) = [line for line in score.lines if line.get_linestyle() == ":"]
    assert set(level.get_ydata()) == {0.5}
    assert not [line for line in difference.lines if line.get_linestyle() == ":"]


def test_a_figure_is_shown_once():
    fidelity.headline(headline_frame(), variants=VARIANTS, splits=SPLITS)
    assert mpl.pyplot.get_fignums() == []


def test_the_colours_of_the_variants_are_fixed_and_distinct():
    known = ["target", "temperature", *VARIANTS]
    assert len({book_style.look(name).colour for name in known}) == 6
    assert len({book_style.look(name).marker for name in known}) == 6
    methods = ["soft", "long", "hard", "wide"]
    assert book_style.look("soft", methods) == book_style.look("soft")
    spare = {book_style.look(name, methods).colour for name in ("long", "wide")}
    assert len(spare) == 2 and not spare & {book_style.look(name).colour for name in known}


def test_headline_draws_each_value_at_its_place():
    frame = headline_frame()
    figure = fidelity.headline(frame, variants=VARIANTS, splits=SPLITS)
    for axis, split in zip(figure.axes, SPLITS, strict=True):
        assert axis.get_title() == book_style.SPLITS[split]
        drawn = {to_hex(c[0].get_color()).upper(): c[0].get_xdata()[0] for c in axis.containers}
        for _, row in frame[frame["split"] == split].iterrows():
            assert drawn[book_style.look(row["variant"]).colour] == row["value"]
        hollow = [to_hex(c[0].get_color()).upper() for c in axis.containers if c[0].get_markerfacecolor() == "white"]
        assert hollow == [book_style.look("base").colour]


@pytest.mark.parametrize(("far", "scale"), [(4.9, "linear"), (5.1, "log")])
def test_headline_is_logarithmic_where_one_would_press_the_others_to_the_edge(far, scale):
    frame = headline_frame()
    frame["high"] = frame["high"].clip(upper=4.0)
    frame.loc[frame.index[0], "high"] = far
    figure = fidelity.headline(frame, variants=VARIANTS, splits=SPLITS)
    assert {axis.get_xscale() for axis in figure.axes} == {scale}


def test_variants_stand_in_one_order_whichever_runs_they_come_from():
    assert book_style.in_order(["base", "soft", "near", "format", "soft", "b", "hard"]) == [
        *("base", "format", "soft", "hard", "near", "b")
    ]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_dots_of_a_family_lie_apart_and_nearer_than_families(count):
    names = [f"v{i}" for i in range(count)]
    rows = [{"family": f, "variant": v, "value": 1.0, "low": 0.9, "high": 1.1} for f in "abc" for v in names]
    figure = points.per_family_dots(pd.DataFrame(rows), variants=names)
    (axis,) = figure.axes
    heights = np.sort(np.concatenate([np.atleast_1d(c.lines[0].get_ydata()) for c in axis.containers]))
    steps = np.diff(heights).reshape(-1)
    inch = (figure.get_size_inches()[1] - 1.6) / 3  # of a row, as it is laid out
    within = [step for i, step in enumerate(steps, start=1) if i % count]
    between = [step for i, step in enumerate(steps, start=1) if not i % count]
    assert min(within) * inch > 6 / 72  # a marker's size
    assert min(between) > 1.5 * max(within)


@pytest.mark.parametrize("draw", [curves.overlay_grid, curves.density_grid])
def test_of_calibrated_variants_each_later_one_is_narrower(draw):
    law = stats.norm(0, 1)
    names = ["base", "format", "soft", "hard", "near"]
    shown = curves.Overlay("n", law, -3, 3, dict.fromkeys(names, ([-1.0, 0.0, 1.0], [1, 2, 1])))
    (axis,) = draw([shown], variants=names).axes
    colours = {book_style.look(name, names).colour: name for name in names}
    drawn = {
        colours[to_hex(line.get_color() if hasattr(line, "get_color") else line.get_edgecolor()).upper()]: line
        for line in [*axis.lines, *axis.patches]
        if to_hex(line.get_color() if hasattr(line, "get_color") else line.get_edgecolor()).upper() in colours
    }
    soft, hard, near = (drawn[name].get_linewidth() for name in ("soft", "hard", "near"))
    assert soft > hard > near and drawn["base"].get_linewidth() == drawn["format"].get_linewidth() == near


def test_headline_leaves_a_missing_variant_out():
    frame = headline_frame().query("variant != 'base'")
    figure = fidelity.headline(frame, variants=VARIANTS, splits=["unseen"])
    assert len(figure.axes[0].containers) == 3


def test_families_are_sorted_by_the_last_variant():
    frame = family_frame()
    figure = points.per_family_dots(frame, variants=VARIANTS)
    (axis, *_) = figure.axes
    names = [t.get_text() for t in axis.get_yticklabels()]
    order = frame[frame["variant"] == "hard"].sort_values("value")["family"]
    assert names == [name.replace("_", " ") for name in order]
    assert axis.get_xscale() == "log"


def test_families_stand_in_an_order_that_is_given():
    frame = family_frame()
    wanted = [*sorted(set(frame["family"]), reverse=True), "none of the frame"]
    (axis, *_) = points.per_family_dots(frame, variants=VARIANTS, order=wanted).axes
    assert [t.get_text() for t in axis.get_yticklabels()] == [name.replace("_", " ") for name in wanted[:-1]]


def test_a_variant_without_any_value_is_not_drawn_and_keeps_its_place():
    frame = family_frame()
    frame.loc[frame["variant"] == "hard", ["value", "low", "high"]] = math.nan
    frame.loc[frame["family"] == frame["family"].iloc[0], ["value", "low", "high"]] = math.nan
    (axis, *_) = points.per_family_dots(frame, variants=VARIANTS).axes
    assert len(axis.get_yticklabels()) == frame["family"].nunique()


def test_nothing_to_compare_is_an_empty_picture():
    figure = points.per_family_dots(family_frame().iloc[:0], variants=[], log=False)
    assert figure.axes[0].get_yticklabels() == []


def test_the_row_that_sums_up_stands_last_and_apart():
    frame = pd.DataFrame(
        [(family, "soft", value, value, value) for family, value in (("all", 1.0), ("b", 3.0), ("a", 2.0))],
        columns=["family", "variant", "value", "low", "high"],
    )
    for together, rows, lines in (
        ("all", ["a", "b", "all"], 1),
        (None, ["all", "a", "b"], 0),
        ("c", ["all", "a", "b"], 0),
    ):
        axis = points.per_family_dots(frame, variants=["soft"], together=together).axes[0]
        assert [t.get_text() for t in axis.get_yticklabels()] == rows
        level = [line for line in axis.get_lines() if list(line.get_ydata()) == [1.5, 1.5]]
        assert len(level) == lines


def test_kl_bars_stack():
    parts = pd.DataFrame(
        [("unseen", "soft", "format", 0.5, 0.4, 0.6), ("unseen", "soft", "shape", 2.0, 1.5, 2.5)],
        columns=["split", "variant", "part", "value", "low", "high"],
    )
    figure = fidelity.kl_split(parts, variants=["soft"], splits=["unseen"])
    bars = figure.axes[0].patches
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0.0, 0.5), (0.5, 2.0)]


def test_the_area_between_the_curves_is_w1():
    law = stats.binom(5, 0.4)
    values, masses = np.array([1.0, 2.5, 4.0]), np.array([0.2, 0.5, 0.3])
    figure = curves.overlay_grid([curves.Overlay("b", law, 0, 5, {"soft": (values, masses)})], variants=["soft"])
    target, answers = figure.axes[0].lines
    at = np.linspace(0, 5, 50_001)[:-1]

    def height(line):
        x, y = line.get_data()
        return np.asarray(y)[np.searchsorted(x, at, side="right") - 1]

    area = np.abs(height(target) - height(answers)).mean() * 5
    assert area == pytest.approx(distances.w1_clipped(values, masses, law, 0, 5), rel=1e-3)
    assert [target.get_color(), answers.get_color()] == [book_style.look(n).colour for n in ("target", "soft")]


def test_answers_out_of_sight_still_count():
    law = stats.norm()
    values, masses = [-50.0, 0.0, 50.0], [1.0, 2.0, 1.0]
    figure = curves.overlay_grid([curves.Overlay("n", law, -3, 3, {"soft": (values, masses)})], variants=["soft"])
    height = figure.axes[0].lines[1].get_ydata()
    assert height[0] == 0.25 and height[-1] == 0.75
    binned = curves.density_grid([curves.Overlay("n", law, -3, 3, {"soft": (values, masses)})], variants=["soft"])
    for stairs in binned.axes[0].patches:
        assert stairs.get_data().values.sum() == pytest.approx(1)


def test_a_variant_without_a_number_is_not_drawn():
    figure = curves.overlay_grid(overlays(), variants=["base", "soft"])
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]


def test_examples_show_where_the_mass_lies_and_how_far_apart_it_is():
    normal, coin = examples.examples(some_examples(), before="base", after=["soft", "hard"]).axes
    colours = {name: book_style.look(name).colour for name in ("base", "soft", "hard")}
    target, soft = normal.patches  # no other answers
    for stairs in (target, soft):
        assert stairs.get_data().values.sum() == pytest.approx(1)
    law, edges = stats.norm(1, 2), target.get_data().edges
    assert target.get_data().values[3] == pytest.approx(law.cdf(edges[4]) - law.cdf(edges[3]))
    assert soft.get_data().values[-1] == 0.25  # at 90, beyond the range
    assert to_hex(soft.get_edgecolor()).upper() == colours["soft"]
    said = [(text.get_text(), text.get_color()) for text in normal.texts]
    assert said == [("nW1", "#222222"), ("soft  0.50", colours["soft"])]
    assert list(coin.patches[0].get_data().edges) == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert len(coin.patches) == 2 and coin.texts[1].get_text() == "base  not determined"  # without a number
    everyone = curves.Overlay("b", stats.binom(5, 0.4), 0, 5, dict.fromkeys(colours, ([1.0], [2.0])))
    distances = {"base": math.nan, "soft": 0.5, "hard": 0.25}
    (axis,) = examples.examples(
        [examples.Example("x", everyone, distances)], before="base", after=["soft", "hard"]
    ).axes
    _, base, soft, hard = axis.patches
    assert [to_hex(s.get_edgecolor()).upper() for s in (base, soft, hard)] == list(colours.values())
    assert soft.get_linewidth() > 2 * hard.get_linewidth()  # equal answers are both seen
    assert {base.get_linestyle(), soft.get_linestyle(), hard.get_linestyle()} == {":", "-", "--"}
    assert [text.get_text() for text in axis.texts] == ["nW1", "base  not determined", "soft  0.50", "hard  0.25"]


def test_verdicts_are_counted_chapter_by_chapter():
    (axis,) = judged.verdict_bars(verdict_frame()).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["b", "a"]
    bars = {part.get_label(): [(bar.get_x(), bar.get_width()) for bar in part] for part in axis.containers}
    assert bars == {"supported": [(0, 2), (0, 4)], "open": [(2, 3), (4, 0)], "not comparable": [(5, 0), (4, 1)]}
    assert [text.get_text() for text in axis.texts] == ["2", "4", "3", "", "", "1"]


def test_the_band_of_a_perfect_sampler_lies_around_the_target():
    law = stats.binom(5, 0.4)
    shown = [curves.Overlay("b", law, 0, 5, {"soft": ([1.0], [1.0])}, band) for band in (0.3, 0.0)]
    banded, plain = curves.overlay_grid(shown, variants=["soft"]).axes
    area, band = banded.collections
    assert area.get_paths()[0].vertices[:, 1].min() == 0  # the target's, down to the axis
    heights = band.get_paths()[0].vertices[:, 1]
    assert len(plain.collections) == 1
    assert heights.min() == 0 and heights.max() == 1  # no probability is outside
    for reached in law.cdf([1, 2]):
        assert any(np.isclose(heights, reached + 0.3)) == (reached < 0.7)
        assert any(np.isclose(heights, reached - 0.3)) == (reached > 0.3)


def test_a_perfect_sampler_is_a_tick_in_each_row():
    rows = [("base", "w", 3.0), ("soft", "w", 2.0), ("base", "best", 0.5), ("soft", "best", 0.25), ("base", "x", 1.0)]
    frame = pd.DataFrame(rows, columns=["variant", "measure", "value"]).assign(low=math.nan, high=math.nan)
    figure = points.measures(frame, variants=["base", "soft"], labels={"w": "W", "x": "X"}, perfect={"w": "best"})
    ticks, none = ([line for line in axis.lines if line.get_marker() == "|"] for axis in figure.axes)
    own = [line for line in ticks if line.get_color() == book_style.look("target").colour]
    assert [line.get_data()[0].tolist() for line in own] == [[0.5, 0.25]]
    assert not [line for line in none if line.get_color() == book_style.look("target").colour]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["perfect sampler"]
    assert points.measures(frame, variants=["base"], labels={"w": "W"}).legends == []


def test_validation_points_are_those_that_ran():
    figure = learning.loss_curves(log_frame(), methods=["soft"])
    lines = figure.axes[1].lines
    assert len(lines) == 2  # a line a seed
    assert list(lines[0].get_xdata()) == [160, 320, 480]
    assert list(lines[0].get_ydata()) == pytest.approx([0.3, 0.15, 0.1])


def test_training_alone_is_hatched_among_operations():
    figure = learning.operations(operations_frame(), training="Fine-tuning")
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [120, 60, 20] and [bool(bar.get_hatch()) for bar in bars] == [
        True,
        False,
        False,
    ]
    assert [text.get_text() for text in figure.axes[0].texts] == ["120  (60%)", "60  (30%)", "20  (10%)"]
    assert figure.axes[0].yaxis_inverted()  # the first on top


def test_the_trie_drawing_keeps_order_and_labels():
    labels = ["^", "1", ".", "$", "2"]
    figure = drawings.trie_drawing([-1, 0, 1, 1, 0], [0, 1, 2, 2, 1], [1, 0.7, 0.3, 0.4, 0.3], labels)
    placed = {t.get_text(): t.get_position() for t in figure.axes[0].texts}
    assert set(placed) == set(labels)
    assert [placed[t][0] for t in labels] == [0, 1, 2, 2, 1]
    heights = [placed[t][1] for t in (".", "$", "2")]
    assert heights == sorted(heights, reverse=True)  # the first answer on top
    assert placed["1"][1] == np.mean(heights[:2])


def test_what_is_said_stands_beside_a_diagonal_in_the_panel_of_its_variant():
    figure = curves.said_against_asked(said_frame(), variants=VARIANTS)
    assert [axis.get_title() for axis in figure.axes] == ["base", "soft"]  # the others said nothing
    for axis, said in zip(figure.axes, (0.61, 0.41), strict=True):
        diagonal, curve = axis.lines
        assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
        assert list(curve.get_xdata()) == [0.1, 0.5, 0.9] and list(curve.get_ydata()) == pytest.approx([said] * 3)


def test_families_of_one_parameter_have_no_second_axis():
    figure = all_figures()["grid"]
    two, one = figure.axes
    assert two.get_ylabel() == "sigma" and len(two.get_yticks()) > 0
    assert one.get_ylabel() == "" and len(one.get_yticks()) == 0


def test_every_panel_of_the_learning_curves_shows_its_curve():
    rising = headline_frame().assign(prompts=100)
    rising["value"] = rising["split"].map(dict(zip(SPLITS, (0.3, 0.9, 1.4), strict=True)))
    rising = rising.assign(low=rising["value"] / 2, high=rising["value"] * 2)
    figure = learning.learning_curves(rising, variants=VARIANTS, splits=SPLITS)
    assert all(axis.get_ylim()[0] == 0 and axis.get_ylim()[1] >= 2.8 for axis in figure.axes)


def test_words_and_tables():
    assert tables.with_interval(0.654, 0.5, 1.2) == "0.65 [0.50,\N{NO-BREAK SPACE}1.20]"
    assert tables.with_interval(-0.001, -0.2, math.inf) == "0.00 [-0.20,\N{NO-BREAK SPACE}inf]"
    assert tables.with_interval(math.nan, math.nan, math.nan) == "–"
    assert tables.with_interval(0.654, math.nan, math.nan) == "0.65"
    html = tables.table(pd.DataFrame({"name": ["a<b"], "x": [0.12345], "y": [math.nan]})).data
    named = pd.DataFrame({"x": [1]}).rename_axis(columns="split")
    assert "split" not in tables.table(named).data
    written = tables.table(pd.DataFrame({"text": ["$$x$$ <b>\n" + "y" * 99]}), verbatim=["text"]).data
    assert "<code>$$x$$ &lt;b&gt;<br>" + "y" * 99 + "</code>" in written
    assert "a&lt;b" in html and "0.123<" in html and "nan" not in html.lower()


def test_heavy_tails_get_a_logarithmic_axis_and_narrow_bins():
    law = stats.lognorm(2.0, scale=12.0)
    setting = curves.Overlay("x", law, law.ppf(0.001), law.ppf(0.999), {"soft": ([1.0, 20.0], [1.0, 1.0])})
    assert curves.overlay_grid([setting], variants=["soft"]).axes[0].get_xscale() == "symlog"
    (target, *_) = curves.density_grid([setting], variants=["soft"]).axes[0].patches
    assert target.get_data().edges[-1] < law.ppf(0.98)
    wide = stats.binom(400, 0.5)
    many = curves.Overlay("y", wide, 140, 260, {})
    (target, *_) = curves.density_grid([many], variants=[]).axes[0].patches
    assert len(target.get_data().values) <= 60
    assert target.get_data().values.sum() == pytest.approx(1)


def test_measurements_of_other_seeds_are_left_out(tmp_path: Path) -> None:
    for variant, seeds in {"base": [-1], "temperature": [-1], "soft": [3, 11, 29]}.items():
        (tmp_path / variant).mkdir()
        pd.DataFrame({"variant": variant, "seed": seeds}).to_parquet(tmp_path / variant / "rows.parquet")
    frame = results.measurements(tmp_path, ["base", "soft", "temperature"], "rows", (29, 11))
    assert list(zip(frame["variant"], frame["seed"], strict=True)) == [
        ("base", -1),
        ("soft", 11),
        ("soft", 29),
        ("temperature", -1),
    ]
    assert list(frame.index) == [0, 1, 2, 3]
