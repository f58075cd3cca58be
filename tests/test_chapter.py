"""Chapters over several runs: what each found stands beside the others, and a run without tables keeps nobody out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from made_up import METHODS, VARIANTS, tables, write
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from notebook_code import ROOT

from calibnb.benchmarks import registry
from calibnb.book import chapter, operations, outcomes, style
from calibnb.book.style import panel_grid
from calibnb.errors import UserError
from calibnb.evidence import runs
from calibnb.evidence.runs import Run
from calibnb.pipeline import params
from calibnb.training.params import TRAINED, write_methods

BENCHMARKS = registry.benchmarks()
LISTS = dict.fromkeys(registry.blocks(), tuple(VARIANTS)) | {"methods": tuple(VARIANTS[1:])}
OWN = Run(Path("results"), ["tiny", "other"], [11], LISTS, {name: METHODS[name] for name in VARIANTS[1:]}, 20)
LARGE = replace(
    OWN,
    root=Path("runs/large/results"),
    models=["tiny"],
    lists=LISTS | dict.fromkeys(registry.blocks(), ("base", "soft", "near")),
    methods={"soft": METHODS["soft"], "near": METHODS["soft"]},
    name="large",
)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Run]:
    """A run of two models, and a committed one of another study on a model of the same name."""
    monkeypatch.chdir(tmp_path)
    tables(OWN.root, OWN.models, VARIANTS, seed=1)
    tables(LARGE.root, LARGE.models, ["base", "soft", "near"], seed=2)
    return OWN, LARGE


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_two_runs_stand_side_by_side(two: Sequence[Run], name: str) -> None:
    both = chapter.Chapter(BENCHMARKS[name], two)
    alone = [chapter.Chapter(BENCHMARKS[name], [run]).summary for run in two]
    pd.testing.assert_frame_equal(both.summary, pd.concat(alone, ignore_index=True))
    assert both.notes == ["Shown: `tiny`, `other`, `tiny (large)`."] and both.runs == list(two)
    assert both.labels == ["tiny", "other", "tiny (large)"]
    ways = ["ssot", "verbalised"] if name == "baselines" else []
    assert sorted(both.variants) == sorted([*VARIANTS, "near", *ways])
    assert list(both.models()) == [(OWN, "tiny"), (OWN, "other"), (LARGE, "tiny")]
    html = both.table().data
    assert html is not None and all(f"<td>{label}</td>" in html for label in both.labels)


def test_a_picture_has_a_part_for_every_model(two: Sequence[Run]) -> None:
    found = chapter.Chapter(BENCHMARKS["openended"], two)
    assert titles(found.picture()) == ["tiny", "other", "tiny (large)"]
    assert titles(chapter.Chapter(BENCHMARKS["language"], two).dots("error")) == ["tiny", "other", "tiny (large)"]
    alone = chapter.Chapter(BENCHMARKS["openended"], [LARGE]).picture()
    assert titles(alone) == []
    assert [axis.get_xlabel() or axis.get_ylabel() or axis.get_title() for axis in alone.axes if axis.get_visible()]


def test_measurements_of_all_runs_stand_below_each_other(two: Sequence[Run]) -> None:
    frame = chapter.Chapter(BENCHMARKS["novelty"], two).frame("prompts")
    rows = frame.groupby(["model", "variant"], sort=False).size()
    labels = [(label, variant) for label in ("tiny", "other") for variant in VARIANTS]
    assert rows.to_dict() == dict.fromkeys(labels + [("tiny (large)", v) for v in ("base", "soft", "near")], 2)


@pytest.mark.parametrize("older", [True, False])
def test_a_committed_run_without_its_tables_is_a_line(two: Sequence[Run], older: bool) -> None:
    path = LARGE.root / "novelty" / "tiny" / "soft" / "prompts.parquet"
    if older:
        pd.read_parquet(path).drop(columns=["distinct"]).to_parquet(path)
    else:
        path.unlink()
    found = chapter.Chapter(BENCHMARKS["novelty"], [*two, replace(LARGE, name="larger")])
    kind = "KeyError" if older else "FileNotFoundError"
    shown, first, second = found.notes
    assert shown == "Shown: `tiny`, `other`."
    assert first.startswith(f"The run large has no tables for this page, or older ones ({kind}: ")
    assert second.startswith("The run larger has no tables") and "\n" not in first + second
    assert found.runs == [OWN] and found.labels == ["tiny", "other"]
    pd.testing.assert_frame_equal(found.summary, chapter.Chapter(BENCHMARKS["novelty"], [OWN]).summary)


@pytest.mark.parametrize(
    ("name", "table"), [(name, table) for name, about in BENCHMARKS.items() for table in about.kept]
)
def test_a_committed_run_without_one_table_is_a_line(two: Sequence[Run], name: str, table: str) -> None:
    """Whether claims rest on it or not: what has the others is shown, and which run lacks it is said."""
    if name != "baselines":  # made up are the tables that claims rest on
        for run, model in ((OWN, "tiny"), (OWN, "other"), (LARGE, "tiny")):
            for variant in run.lists[name]:
                path = run.folder(name, model) / variant / f"{table}.parquet"
                if not path.is_file():
                    write(path, pd.DataFrame({"variant": [variant], "seed": [11]}))
    for path in (LARGE.root / name / "tiny").rglob(f"{table}.parquet"):
        path.unlink()
    found = chapter.Chapter(BENCHMARKS[name], two)
    if name != "baselines":  # of which base alone has some tables, and no page reads one by itself
        assert set(found.frame(table)["model"]) == {"tiny", "other"}
    lines = [note for note in found.notes if note.startswith("The run large has no tables for this page, or older")]
    assert len(lines) == 1 and f"{table}.parquet" in lines[0]


def test_an_own_run_without_its_tables_is_an_error(two: Sequence[Run]) -> None:
    path = OWN.root / "novelty" / "other" / "soft" / "prompts.parquet"
    pd.read_parquet(path).drop(columns=["distinct"]).to_parquet(path)
    with pytest.raises(KeyError, match="distinct"):
        chapter.Chapter(BENCHMARKS["novelty"], two)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"soft/prompts\.parquet"):
        chapter.Chapter(BENCHMARKS["novelty"], two)


def test_without_any_tables_there_is_nothing_but_lines() -> None:
    frame, notes = chapter.of_each_run([LARGE], lambda run: pd.DataFrame()["absent"])
    assert frame.empty and notes == ["The run large has no tables for this page, or older ones (KeyError: 'absent')."]


def test_operations_are_summed_by_kind_of_stage(two: Sequence[Run]) -> None:
    shown = [OWN, replace(LARGE, lists={**LARGE.lists, "methods": ("soft", "near")})]
    for run, budget in zip(shown, ("350", "null"), strict=True):
        (run.root.parent / "params.yaml").write_text(f"budget_tflop: {budget}\n")
    found, notes = chapter.of_each_run(shown, operations.by_kind)
    assert notes == [] and list(found["model"].unique()) == ["tiny", "other", "tiny (large)"]
    for (label, rows), variants, trained in zip(found.groupby("model", sort=False), (5, 5, 3), (4, 4, 2), strict=True):
        assert rows["tflop"].is_monotonic_decreasing, label
        expected = dict.fromkeys((about.title for about in BENCHMARKS.values()), 1.0 * variants)
        expected |= {BENCHMARKS["positions"].title: 3.0 * variants, operations.TRAINING: 10.0 * trained}
        expected |= {"Fitting a temperature": 0.25, "Ordinary answers": 0.5}
        assert rows.set_index("kind")["tflop"].to_dict() == expected
    one = 10 * 4 + 5 * (len(BENCHMARKS) + 2) + 0.75
    own, large = (operations.sentence(rows) for _, rows in found.groupby("run", sort=False))
    assert own == (
        f"`tiny`, `other`: {2 * one:.3g} TFLOP in all, of which training takes {40 / one:.0%}. "
        "The budget of 350 TFLOP is kept."
    )
    assert large.startswith("`tiny (large)`: ") and "budget" not in large
    over = operations.sentence(found[found["run"] == ""].assign(budget=2 * one - 0.5))
    assert over.endswith(" TFLOP is exceeded.")
    Path("results/finetune/tiny/soft/seed-11.json").write_text('{"validation_loss": 2.0}')
    with pytest.raises(KeyError, match="tflop"):
        operations.by_kind(OWN)
    assert chapter.of_each_run([replace(OWN, name="older")], operations.by_kind)[1] == [
        "The run older has no tables for this page, or older ones (KeyError: 'tflop')."
    ]


def test_what_is_read_given_something_rare_has_no_value(two: Sequence[Run]) -> None:
    path = OWN.root / "openended" / "tiny" / "soft" / "categories.parquet"
    pd.read_parquet(path).assign(member_mass=0.009).to_parquet(path)
    found = chapter.Chapter(BENCHMARKS["openended"], two).summary
    distance = found[found["measure"] == "uniform_tv"].set_index(["model", "variant"])["value"]
    assert [place for place, value in distance.items() if pd.isna(value)] == [("tiny", "soft")]
    assert found[found["measure"] != "uniform_tv"]["value"].notna().all()


def test_findings_of_the_own_run_are_written_and_all_are_shown(two: Sequence[Run]) -> None:
    found = chapter.Chapter(BENCHMARKS["openended"], two).judged()
    written = json.loads(Path("results/findings/openended.json").read_text())
    assert written == outcomes.read(["openended"])
    own = found[found["model"].isin(["tiny", "other"])]
    assert [row["id"] for row in written] == own["id"].tolist()
    assert set(found[found["id"].str.endswith("@other")]["model"]) == {"other"}
    assert set(found[~found["id"].str.endswith("@other")]["model"]) == {"tiny", "tiny (large)"}
    near = found[found["id"].str.startswith("openended.near.")]
    assert set(near["model"]) == {"tiny (large)"}
    assert not (LARGE.root / "findings").exists()


@pytest.mark.parametrize("second", ["org/name", "./folder"])
def test_findings_of_a_second_model_are_its_own_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = replace(OWN, models=["tiny", second])
    tables(run.root, run.models, VARIANTS, seed=1)
    found = chapter.Chapter(BENCHMARKS["openended"], [run]).judged()
    named = found["id"].str.contains("@")
    assert set(found[named]["model"]) == {second} and set(found[~named]["model"]) == {"tiny"}


def test_findings_of_all_runs_by_what_pages_call_their_models(two: Sequence[Run]) -> None:
    rows = {"results": ["a", "a@other", "b"], "runs/large/results": ["a"]}
    for root, ids in rows.items():
        Path(root, "findings.json").write_text(json.dumps([{"id": i, "value": n} for n, i in enumerate(ids)]))
    found, notes = outcomes.of_models(["tiny", "other"], [LARGE])
    assert not notes
    assert {label: {i: row["value"] for i, row in rows.items()} for label, rows in found.items()} == {
        "tiny": {"a": 0, "b": 2},
        "other": {"a": 1},
        "tiny (large)": {"a": 0},
    }
    assert list(outcomes.of_models([], [LARGE])[0]) == ["tiny (large)"]
    Path("runs/large/results/findings.json").unlink()
    found, notes = outcomes.of_models(["tiny", "other"], [LARGE])
    assert list(found) == ["tiny", "other"] and notes == ["The run large has no findings."]


def test_claims_are_shown_with_their_model_where_there_are_several() -> None:
    row = {"claim": "a > b", "verdict": "supported", "value": 0.5, "low": 0.4, "high": 0.6, "unit": "share"}
    assert "No claim rests on this page" in str(outcomes.claims_table(pd.DataFrame()).data)
    one = str(outcomes.claims_table(pd.DataFrame([row | {"model": "tiny"}, row | {"model": "tiny", "claim": ""}])).data)
    assert "<td>a &gt; b</td>" in one and "0.50 [0.40,\N{NO-BREAK SPACE}0.60]" in one
    assert one.count("<tr") == 2 and "tiny" not in one
    several = str(outcomes.claims_table(pd.DataFrame([row | {"model": "tiny"}, row | {"model": "other"}])).data)
    assert "<td>tiny</td>" in several and "<td>other</td>" in several


def test_where_no_run_has_tables_a_page_says_so_and_asks_nothing() -> None:
    absent = replace(LARGE, root=Path("nowhere/results"))
    for benchmark in BENCHMARKS.values():
        found = chapter.Chapter(benchmark, [absent])
        assert found.runs == [] and found.summary.empty and found.judged().empty
        assert found.frame("any").empty
        assert found.each(found.frame("any"), lambda part: part, by="family").columns.tolist()[:3] == [
            "model",
            "variant",
            "family",
        ]
        assert chapter.NOTHING in str(found.answer(lambda model: "x").data)
        assert chapter.NOTHING in str(found.shows(lambda model: "x").data)
        folds = str(found.folds().data)
        assert folds.count("<details") == 1 and "Shown: no run." in folds
    (axis,) = chapter.Chapter(BENCHMARKS["openended"], []).picture().axes
    assert [text.get_text() for text in axis.texts] == ["No run that is present has anything to show here."]


def test_a_page_answers_model_by_model(two: Sequence[Run]) -> None:
    found = chapter.Chapter(BENCHMARKS["openended"], two)
    html = str(found.answer(lambda model: f"<em>{len(model)}</em>").data)
    first, fold = html.split("<details", 1)  # one answer is read at once, the others are a click away
    assert first == '<p class="answer"><code>tiny</code>: <em>4</em></p>\n'
    assert "other models and runs (2)" in fold
    labels = ["<p><code>other</code>: <em>5</em></p>", "<p><code>tiny (large)</code>: <em>12</em></p>"]
    assert "\n".join(labels) in fold


def test_numbers_are_those_of_the_summary_that_exist(two: Sequence[Run]) -> None:
    path = OWN.root / "openended" / "tiny" / "soft" / "categories.parquet"
    pd.read_parquet(path).assign(member_mass=0.009).to_parquet(path)
    found = chapter.Chapter(BENCHMARKS["openended"], two)
    here = found.summary[(found.summary["model"] == "tiny") & (found.summary["measure"] == "uniform_tv")]
    expected = here.set_index("variant")["value"].drop("soft")
    numbers = found.numbers("tiny", "uniform_tv", digits=3, scale=10, unit=" x")
    assert list(numbers) == list(expected.index)
    assert all(f">{10 * expected[variant]:.3f}</span> x" in text for variant, text in numbers.items())
    shares = found.shares("tiny", "uniform_tv")
    assert all(f">{100 * expected[variant]:.0f}</span>\N{NO-BREAK SPACE}%" in text for variant, text in shares.items())
    of_split = chapter.Chapter(BENCHMARKS["structured"], two).numbers("tiny", "valid_mass", "held_out")
    assert set(of_split) == set(VARIANTS)


def test_verdicts_are_those_of_the_findings_of_a_model(two: Sequence[Run]) -> None:
    found = chapter.Chapter(BENCHMARKS["openended"], two)
    for label, tail in (("tiny", ""), ("other", "@other"), ("tiny (large)", "")):
        rows = found.judged()
        rows = rows[rows["model"] == label].set_index("id")
        verdicts = found.verdicts(label, "openended.{variant}.unique_vs_format")
        assert verdicts == {
            variant: rows.loc[name, "verdict"]
            for variant in found.variants
            if (name := f"openended.{variant}.unique_vs_format{tail}") in rows.index
        }
        quoted = found.quoted(label, "openended.{variant}.numbers", digits=3)
        assert set(quoted) == set(found.summary[found.summary["model"] == label]["variant"])
        assert all(f">{rows.loc[f'openended.{v}.numbers{tail}', 'value']:.3f}<" in text for v, text in quoted.items())
    told = found.outcomes("tiny", "openended.{variant}.unique_vs_{against}", "more", "less")
    assert "the format control" in told and "with <em>soft</em>" in told
    assert found.outcomes("tiny", "openended.{variant}.nothing_vs_{against}", "more", "less").startswith("no claim")
    assert found.hard_or_soft("tiny", "openended.{variant}.nothing_vs_{against}", "more", "less") == ""
    mixing = chapter.Chapter(BENCHMARKS["mixing"], two)
    assert mixing.hard_or_soft("tiny", "mixing.{variant}.error_vs_{against}", "more", "less").startswith(
        " With <em>hard</em>, "
    )


def test_parts_are_summed_up_by_model_variant_and_column(two: Sequence[Run]) -> None:
    found = chapter.Chapter(BENCHMARKS["openended"], two)
    frame = found.frame("categories")
    counted = found.each(frame, lambda part: pd.DataFrame([{"value": len(part)}]), by="category")
    expected = frame.groupby(["model", "variant", "category"], sort=False).size()
    assert counted.set_index(["model", "variant", "category"])["value"].to_dict() == expected.to_dict()


@pytest.mark.parametrize("rows", [0, 1])
def test_parts_without_rows_leave_numbers_numbers(two: Sequence[Run], rows: int) -> None:
    """What is read given something rare has no rows; pictures draw the others, and need not ask."""
    found = chapter.Chapter(BENCHMARKS["openended"], two)
    nothing = pd.DataFrame(columns=["value", "low", "high"])
    one = pd.DataFrame([{"value": 0.5, "low": 0.0, "high": 1.0}])

    def sum_up(part: pd.DataFrame) -> pd.DataFrame:
        return one if rows and part["variant"].iloc[0] == "soft" else nothing

    made = found.each(found.frame("categories"), sum_up, by="category")
    assert {str(made[name].dtype) for name in ("value", "low", "high")} == {"float64"}
    assert set(made["variant"]) == ({"soft"} if rows else set())


def test_the_end_of_a_page_counts_what_is_folded(two: Sequence[Run]) -> None:
    found = chapter.Chapter(BENCHMARKS["openended"], two)
    html = str(found.folds(chapter.page.fold("More", "<p>x</p>")).data)
    titles = [part.partition("</summary>")[0] for part in html.split("<summary>")[1:]]
    claimed = found.judged().query("claim != ''")["verdict"].value_counts()
    assert titles[0].startswith("Claims: ") and titles[2:] == ["More", "Runs on this page"]
    assert set(titles[0].removeprefix("Claims: ").split(", ")) == {f"{n} {v}" for v, n in claimed.items()}
    assert titles[1] == f"All measures (13) of all variants ({len(found.variants)}), with 95 % intervals"
    assert "<code>tiny (large)</code>" in html


# ------------------------------------------------------------------------------------ the same picture for each


def titles(figure: Figure) -> list[str]:
    """What stands above the parts of a figure."""
    return [part.get_suptitle() for part in figure.subfigs]


def drawn(part: pd.DataFrame) -> Figure:
    figure, (axis,) = panel_grid(1, 1, 3.0, 2.0)
    axis.plot(part["x"])
    return style.finished(figure)


def test_one_value_is_the_picture_itself() -> None:
    made: list[Figure] = []

    def draw(part: pd.DataFrame) -> Figure:
        made.append(drawn(part))
        return made[-1]

    frame = pd.DataFrame({"model": "a", "x": [1, 2]})
    assert style.each(draw, frame) is made[0] and len(made) == 1
    assert tuple(made[0].get_size_inches()) == (3.0, 2.0)


def test_two_values_are_a_part_each() -> None:
    frame = pd.DataFrame({"model": ["b", "b", "a"], "x": [1, 2, 9]})
    figure = style.each(drawn, frame)
    assert titles(figure) == ["b", "a"]
    lines = [part.subfigs[0].axes[0].lines[0].get_ydata() for part in figure.subfigs]
    assert [list(line) for line in lines] == [[1, 2], [9]]
    assert tuple(figure.get_size_inches()) == (3.0, pytest.approx(2 * 2.4))
    assert titles(style.each(drawn, frame, by="x")) == ["1", "2", "9"]
    assert plt.get_fignums() == []


def test_a_part_that_fails_leaves_no_trace() -> None:
    def draw(part: pd.DataFrame) -> Figure:
        figure = drawn(part)
        if len(style._PARTS):
            raise RuntimeError("no")
        return figure

    with pytest.raises(RuntimeError, match="no"):
        style.each(draw, pd.DataFrame({"model": ["a", "b"], "x": 1}))
    assert style._PARTS == []
    plt.close("all")


# --------------------------------------------------------------------------------------------------- runs


def with_methods(study: params.Params, folder: Path) -> Path:
    """Where the results of a study would lie, beside the methods that it trains."""
    write_methods({name: study.finetune[name] for name in study.methods}, folder / TRAINED)
    return folder / "results"


def test_the_own_run_is_what_the_parameters_say(tmp_path: Path) -> None:
    study = params.load(ROOT / "params.yaml")
    run = runs.of_study(study, with_methods(study, tmp_path))
    assert run.lists == {name: study.measured(name) for name in registry.blocks()} | {"methods": list(study.methods)}
    assert (run.own, run.mixed, run.name) == (["soft"], [], "")
    assert (run.models, run.seeds, run.resamples) == (study.models, study.seeds, study.bootstrap)
    assert run.methods == {name: study.finetune[name] for name in study.methods}
    assert run.folder("novelty", "./a/b") == tmp_path / "results/novelty/a/b" and run.label("./a/b") == "./a/b"


def committed(folder: Path, run: Run) -> None:
    """A run as its ``run.json`` says it."""
    about = {"models": run.models, "seeds": run.seeds, "measured": run.lists}
    about |= {"bootstrap": run.resamples, "provenance": {"device": "an abacus"}}
    about |= {"methods": {name: how.model_dump(mode="json") for name, how in run.methods.items()}}
    (folder / run.name).mkdir(parents=True)
    (folder / run.name / runs.ABOUT).write_text(json.dumps(about))


def test_committed_runs_come_in_the_order_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = params.load(ROOT / "params.yaml")
    own = runs.of_study(study, with_methods(study, tmp_path / "own"))
    lists = {name: list(variants) for name, variants in own.lists.items()}
    own = replace(own, models=list(own.models), seeds=list(own.seeds), lists=lists)
    kept = tmp_path / "runs"
    assert runs.committed(kept) == []
    for name in ("b", "a"):
        committed(kept, replace(own, name=name))
    (kept / "c").mkdir()  # no run
    found = runs.committed(kept)
    assert found == [replace(own, root=kept / name / "results", name=name) for name in ("a", "b")]
    assert found[0].label("tiny") == "tiny (a)"
    assert runs.provenance(kept / "a") == {"device": "an abacus"}
    monkeypatch.chdir(tmp_path / "own")
    shown = chapter.present(study, kept, own=True)
    assert [run.name for run in shown] == ["", "a", "b"]
    assert [run.name for run in chapter.present(SimpleNamespace(), kept, own=False)] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"models": ["tiny"]}', "{"])
def test_a_committed_run_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / runs.ABOUT).write_text(text)
    with pytest.raises(UserError, match=r"a/run\.json: must be json with the keys of a run") as caught:
        runs.committed(tmp_path)
    assert "\n" not in str(caught.value)
