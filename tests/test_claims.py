"""Claims as rows of a table: what a row says becomes findings, and the study's table is whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import METHODS, VARIANTS, tables, write

from calibnb.benchmarks import registry
from calibnb.benchmarks.claims import TRADEOFF, TRAINING
from calibnb.evidence import claims, verdicts
from calibnb.evidence.claims import Claim, Finding, Items, Parquet, Table
from calibnb.evidence.runs import Run

# Items with equal values: intervals have no width, and every number is known by hand.
FRAMES = {
    "base": {"id": list("abcdef"), "hits": 0.125, "numbers": 0.0, "valid": 1.0},
    "format": {"id": list("abcdef"), "hits": 0.4, "numbers": 1.0, "valid": 1.0},
    "soft": {"id": list("abcdef"), "hits": 0.7, "numbers": 1.0, "valid": 1.0},
    "mixed": {"id": list("abcdef"), "hits": 0.3, "numbers": 0.2, "valid": 0.001},
}
MADE_UP = Table("game", Parquet("game", "rows"))
VALUE = Claim(
    MADE_UP,
    Items("id"),
    "hits",
    id="game.{variant}.{measure}",
    question="How often does {variant} hit?",
    unit="share",
    source="results/game/{slug}/{variant}/rows.parquet",
)
MORE = replace(
    VALUE,
    of="own",
    against="controls",
    id="game.{variant}.vs_{against}",
    question="Does {variant} hit more than {reference}?",
    claim="{variant} hits more than {reference}",
    rule=verdicts.above_zero,
)


@pytest.fixture
def measured(tmp_path: Path) -> Run:
    for model in ("one", "two"):
        for variant, columns in FRAMES.items():
            frame = pd.DataFrame(columns | {"variant": variant, "seed": 11})
            path = tmp_path / "game" / model / variant / "rows.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path)
    methods = {name: METHODS[name] for name in ("soft", "mixed")}
    return Run(tmp_path, ["./one"], [11], {"game": list(FRAMES)}, methods, 20)


def found(measured: Run, *rows: Claim) -> list[Finding]:
    return claims.evaluate([(rows,)], measured)


def verdict_of(measured: Run, row: Claim) -> dict[Any, Any]:
    return {finding["id"]: finding["verdict"] for finding in found(measured, row)}


def test_a_measurement_is_a_finding_of_every_variant(measured: Run) -> None:
    findings = found(measured, VALUE)
    assert [f["id"] for f in findings] == [f"game.{v}.hits" for v in FRAMES]
    assert findings[0] == {
        "id": "game.base.hits",
        "question": "How often does base hit?",
        "claim": "",
        "value": 0.125,
        "low": 0.125,
        "high": 0.125,
        "unit": "share",
        "source": "results/game/one/base/rows.parquet",
        "verdict": "measured",
    }


def test_a_claim_is_one_row_more(measured: Run) -> None:
    findings = found(measured, VALUE, MORE)
    assert [f["id"] for f in findings if f["claim"]] == [
        f"game.{v}.vs_{c}" for v in ("soft", "mixed") for c in ("format", "base")
    ]
    assert [f for f in findings if not f["claim"]] == found(measured, VALUE)
    soft = next(f for f in findings if f["id"] == "game.soft.vs_format")
    assert soft["claim"] == "soft hits more than the format control"
    assert soft["value"] == soft["low"] == pytest.approx(0.3)
    assert findings[-1]["claim"] == "mixed hits more than the model as it comes"


def test_claims_are_judged_by_their_rule_and_guards(measured: Run) -> None:
    assert verdict_of(measured, MORE) == {
        "game.soft.vs_format": "supported",
        "game.soft.vs_base": "supported",
        "game.mixed.vs_format": "refuted",
        "game.mixed.vs_base": "supported",
    }
    assert verdict_of(measured, replace(MORE, rule=verdicts.below_zero))["game.mixed.vs_format"] == "supported"
    assert verdict_of(measured, replace(MORE, alike="numbers")) == {
        "game.soft.vs_format": "supported",  # both in numbers
        "game.soft.vs_base": "not comparable",
        "game.mixed.vs_format": "not comparable",
        "game.mixed.vs_base": "supported",  # neither in numbers
    }
    assert verdict_of(measured, replace(MORE, rare="valid")) == {
        "game.soft.vs_format": "supported",
        "game.soft.vs_base": "supported",
        "game.mixed.vs_format": "not comparable",
        "game.mixed.vs_base": "not comparable",
    }
    ways = {"rare": "hits", "rare_against": "valid"}  # the second of them is rare for mixed alone
    assert verdict_of(measured, replace(MORE, of=("base", "mixed"), against="soft", **ways)) == {
        "game.base.vs_soft": "refuted",
        "game.mixed.vs_soft": "refuted",  # that of soft counts, not its own
    }
    assert verdict_of(measured, replace(MORE, of="each", against="", **ways)) == {
        "game.base.vs_": "supported",
        "game.format.vs_": "supported",
        "game.soft.vs_": "supported",
        "game.mixed.vs_": "not comparable",
    }


def test_a_row_says_of_which_variants_it_is(measured: Run) -> None:
    for of, variants in {"own": ["soft", "mixed"], "other": ["base", "format"], ("format",): ["format"]}.items():
        assert [f["id"] for f in found(measured, replace(VALUE, of=of))] == [f"game.{v}.hits" for v in variants]
    named = replace(MORE, of="each", against="soft")
    assert [f["id"] for f in found(measured, named)] == [f"game.{v}.vs_soft" for v in FRAMES if v != "soft"]
    assert found(measured, named)[0]["claim"] == "base hits more than soft"
    without = replace(measured, lists={"game": ["base", "soft"]})
    assert [f["id"] for f in found(without, MORE)] == ["game.soft.vs_base"]  # the control is not measured


def test_a_further_model_has_its_name_in_its_ids(measured: Run) -> None:
    both = replace(measured, models=["./one", "./two"])
    chapters = [((VALUE,), (MORE,)), ((replace(VALUE, id="again.{variant}"),),)]
    ids = [f["id"] for f in claims.evaluate(chapters, both)]
    against = [f"game.{v}.vs_{c}" for v in ("soft", "mixed") for c in ("format", "base")]
    first = [*(f"game.{v}.hits" for v in FRAMES), *against]
    again = [f"again.{v}" for v in FRAMES]
    assert ids == [*first, *(f"{i}@two" for i in first), *again, *(f"{i}@two" for i in again)]


def test_groups_have_a_finding_and_guards_each(measured: Run) -> None:
    for variant, hits in {"format": 0.2, "soft": 0.6}.items():
        suites = pd.DataFrame({"id": list("abcdefghijklmno"), "hits": hits, "variant": variant, "seed": 11})
        suites = suites.assign(suite=list("xxxxxxyyyyyyzzz"), valid=[1.0] * 6 + [0.0] * 6 + [1.0] * 3)
        suites.to_parquet(measured.root / "game" / "one" / variant / "rows.parquet")
    row = replace(MORE, of=("soft",), against="format", groups="suite", rare="valid", id="{suite}.{variant}")
    assert verdict_of(measured, row) == {
        "x.soft": "supported",
        "y.soft": "not comparable",
        "z.soft": "open",  # of 3 items
    }


def test_only_items_and_families_with_a_value_of_both_count(measured: Run) -> None:
    for variant, hits in {"format": [0.2] * 6, "soft": [0.6] * 5 + [math.nan]}.items():
        frame = pd.DataFrame({"id": list("abcdef"), "family": list("abcdef"), "label": range(6), "hits": hits})
        frame = frame.assign(split="in", variant=variant, seed=11)
        frame.to_parquet(measured.root / "game" / "one" / variant / "rows.parquet")
    row = replace(MORE, of=("soft",), against="format")
    assert verdict_of(measured, row) == {"game.soft.vs_format": "open"}
    ratio = replace(row, how=claims.families, groups="split", rule=verdicts.below_one)
    assert verdict_of(measured, ratio) == {"game.soft.vs_format": "open"}


def test_an_nw1_that_the_search_leaves_open_is_not_determined(measured: Run) -> None:
    for variant, nw1 in {"format": 1.0, "soft": 0.5}.items():
        frame = pd.DataFrame({"split": ["in"] * 6 + ["out"] * 6, "family": list("abcdef") * 2, "label": range(12)})
        frame = frame.assign(nw1=nw1, nw1_slack=[0.1] * 6 + [0.5] * 6)  # as much as soft's value out of range
        frame = frame.assign(variant=variant, seed=11)
        frame.to_parquet(measured.root / "game" / "one" / variant / "rows.parquet")
    value = replace(VALUE, how=claims.families, measure="nw1", groups="split", id="{split}.{variant}", determined=True)
    value = replace(value, of=("format", "soft"))
    assert verdict_of(measured, value) == {
        "in.format": "measured",
        "out.format": "measured",
        "in.soft": "measured",
        "out.soft": "not determined",
    }
    ratio = replace(value, of=("soft",), against="format", claim="{variant} is closer", rule=verdicts.below_one)
    assert verdict_of(measured, ratio) == {"in.soft": "supported", "out.soft": "not determined"}
    assert verdict_of(measured, replace(ratio, determined=False))["out.soft"] == "supported"
    assert [f["value"] for f in found(measured, ratio)] == [0.5, 0.5]
    with pytest.raises(ValueError, match="summed up by split, not by ''"):
        found(measured, replace(value, groups=""))


def test_rows_share_what_is_read_and_computed(measured: Run) -> None:
    asked, read = [], []

    def counted(
        own: pd.DataFrame, other: pd.DataFrame | None, measures: Sequence[str], *, by: str, resamples: int
    ) -> pd.DataFrame:
        asked.append((own["variant"].iloc[0], other is None, tuple(measures)))
        return Items("id")(own, other, measures, by=by, resamples=resamples)

    def reader(measured: Run, model: str, variants: Sequence[str]) -> pd.DataFrame:
        read.append(tuple(variants))
        return Parquet("game", "rows")(measured, model, variants)

    value = replace(VALUE, table=Table("game", reader), how=counted)
    more = replace(MORE, table=value.table, how=counted)
    rows = [value, replace(value, measure="numbers"), replace(value, id="twice"), more, replace(more, measure="valid")]
    once = [("base", True), ("format", True), ("soft", True), ("mixed", True)]
    claims.evaluate([(tuple(rows),), (tuple(rows),)], measured)
    assert sorted(read) == sorted((v,) for v in FRAMES)
    assert sorted(asked) == sorted(
        [(v, none, ("hits", "numbers")) for v, none in once]
        + [(v, False, ("hits", "valid")) for v in ("soft", "soft", "mixed", "mixed")]
    )


def test_a_row_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="a claim has a rule"):
        replace(VALUE, claim="{variant} hits")
    with pytest.raises(ValueError, match="a claim has a rule"):
        replace(MORE, claim="")
    with pytest.raises(ValueError, match="without another"):
        replace(VALUE, alike="numbers")


# The study's own table, on results that are made up

CHAPTERS = {name: (benchmark.claims,) for name, benchmark in registry.benchmarks().items()}
CHAPTERS |= {"tradeoff": ((TRADEOFF,),), "finetuning": ((TRAINING,),)}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("results")
    tables(root, ["tiny"])
    changes = pd.DataFrame(
        [
            ("mixed", "right answers", None, None),
            ("mixed", "right answers, difference", None, "base"),
            ("mixed", "nW1, in range, ratio", "validation", "base"),
            ("mixed", "right answers, difference", None, "soft"),
            ("mixed", "bits per byte, difference", None, "soft"),
            ("mixed", "nW1, in range, ratio", "validation", "soft"),
            ("mixed", "nW1, held-out families, ratio", "held_out", "soft"),
        ],
        columns=["variant", "measure", "split", "against"],
    )
    changes.assign(model="./tiny", value=0.5, low=0.4, high=0.6).to_csv(root / "tradeoff.csv", index=False)
    lists = dict.fromkeys(registry.blocks(), VARIANTS) | {"methods": VARIANTS[1:]}
    lists |= {name: ["base", "soft", "mixed"] for name in ("capability", "perplexity")}
    for benchmark, name, table in (("told", "told", "settings"), ("mixing", "paired", "items")):
        lists |= {benchmark: [*VARIANTS, name]}  # a method that claims of its own are about
        frame = pd.read_parquet(root / f"{benchmark}/tiny/soft/{table}.parquet")
        write(root / f"{benchmark}/tiny/{name}/{table}.parquet", frame.assign(variant=name))
    methods = {name: METHODS[name] for name in (*VARIANTS[1:], "told", "paired")}
    return Run(root, ["./tiny"], [11, 12], lists, methods, 20)


@pytest.fixture(scope="module")
def findings(study: Run) -> dict[str, Finding]:
    evaluated = [finding for chapters in CHAPTERS.values() for finding in claims.evaluate(chapters, study)]
    by_id = {str(finding["id"]): finding for finding in evaluated}
    assert len(by_id) == len(evaluated)
    return by_id


def test_every_row_of_the_table_is_found(findings: dict[str, Finding], study: Run) -> None:
    sections = [section for chapters in CHAPTERS.values() for chapter in chapters for section in chapter]
    for row in (row for section in sections for row in section):
        alone = claims.evaluate([((row,),)], study)
        assert alone, row.id
        assert [findings[str(finding["id"])] for finding in alone] == alone
        assert {bool(finding["claim"]) for finding in alone} == {bool(row.claim)}


def test_the_table_is_in_the_order_of_the_pages(study: Run) -> None:
    splits = ("in_range", "unseen", "held_out")
    numbers = ("nw1", "valid_mass", "valid_mass_at_most", "kl_format", "kl_shape", "nw1_slack")
    suites = [("implicit", "normalised_tv"), ("choices", "normalised_tv")]

    def language(suites: list[tuple[str, str]]) -> list[str]:
        values = [f"language.{s}.{v}.{m}" for v in VARIANTS for s, e in suites for m in (e, "valid_mass")]
        pairs = [(v, c) for v in VARIANTS[2:] for c in ("format", "base")] + [("hard", "soft")]
        return values + [f"language.{s}.{v}.error_vs_{c}" for v, c in pairs for s, _ in suites]

    ways = {"structured": "valid_mass", "openended": "answered", "novelty": "answered"}
    ways |= {"language": "valid", "positions": "parsed"}
    wanted = {
        "baselines": [f"baselines.{b}.{way}.{m}" for b, m in ways.items() for way in ("ssot", "verbalised")],
        "capability": [
            "capability.base.score",
            *(f"capability.{v}.{m}" for v in ("soft", "mixed") for m in ("score", "vs_base")),
            *(f"capability.base.arithmetic_{way}" for way in ("strict", "lenient", "cut")),
            *(
                f"capability.{v}.arithmetic_{m}"
                for v in ("soft", "mixed")
                for m in ("strict", "lenient", "cut", "strict_vs_base", "lenient_vs_base", "vs_rest")
            ),
        ],
        "language": [*language(suites), *language([("paraphrases", "nw1")])],
        "mixing": [
            *(f"mixing.{v}.{m}" for v in (*VARIANTS, "paired") for m in ("slope", "error", "divergence", "either")),
            *(
                f"mixing.{v}.{m}"
                for v in (*VARIANTS[2:], "paired")
                for m in ("error_vs_base", "slope_vs_base", "error_vs_format")
            ),
            "mixing.hard.error_vs_soft",
            *(f"mixing.paired.{seen}.slope_vs_base" for seen in ("words-and-wording", "wording-alone")),
        ],
        "novelty": [
            *(f"novelty.{v}.{m}" for v in VARIANTS for m in ("distinct", "numbers")),
            *(f"novelty.{v}.distinct_vs_{c}" for v in VARIANTS[2:] for c in ("format", "base")),
            "novelty.hard.distinct_vs_soft",
        ],
        "openended": [
            *(
                f"openended.{v}.{m}"
                for v in VARIANTS
                for m in ("unique_fraction_folded", "support_0.90", "numbers", "member_mass", "uniform_tv")
            ),
            *(
                f"openended.{v}.{m}_vs_{c}"
                for v in VARIANTS[2:]
                for c in ("format", "base")
                for m in ("unique", "members")
            ),
            *(f"openended.hard.{m}_vs_soft" for m in ("unique", "members")),
        ],
        "perplexity": [
            "perplexity.base.bits_per_byte",
            *(f"perplexity.{v}.{m}" for v in ("soft", "mixed") for m in ("bits_per_byte", "vs_base")),
        ],
        "positions": [
            *(f"positions.{v}.{m}" for v in VARIANTS for m in ("letter_mass", "total_variation", "habit")),
            *(f"positions.soft.choice_vs_{c}" for c in ("base", "format")),
            *(f"positions.hard.choice_vs_{c}" for c in ("base", "format", "soft")),
            *(f"positions.mixed.choice_vs_{c}" for c in ("base", "format")),
            *(f"positions.{v}.{m}" for v in VARIANTS for m in ("parse", "exact_total_variation")),
        ],
        "sequences": [
            *(
                f"sequences.{v}.{m}"
                for v in VARIANTS
                for m in ("given", "in_lists", "nw1", "nw1_perfect", "repeats", "runs_z", "lag1", "same_list")
            ),
            *(f"sequences.{v}.nw1_vs_{c}" for v in ("soft", "hard", "mixed") for c in ("base", "format")),
            "sequences.hard.nw1_vs_soft",
            *(
                f"sequences.shuffles.{v}.{m}"
                for v in VARIANTS
                for m in ("valid", "first_tv", "unchanged", "inversions")
            ),
        ],
        "structured": [
            *(f"structured.{s}.{v}.{m}" for v in VARIANTS for s in splits for m in numbers),
            *(
                f"structured.{s}.{v}.{m}"
                for v in VARIANTS[2:]
                for m in ("w1_vs_format", "shape_vs_format", "tv_vs_format", "w1_vs_base")
                for s in splits
            ),
            *(f"structured.{s}.hard.w1_vs_soft" for s in splits),
            "structured.sampled.agreement",
        ],
        "told": [
            *(
                f"told.{s}.{v}.{m}"
                for v in (*VARIANTS, "told")
                for s in splits
                for m in (
                    *("nw1_untold", "nw1_told", "place_untold", "shape_untold"),
                    *("followed_place", "valid_mass_told"),
                )
            ),
            *(f"told.{s}.{v}.told_vs_untold" for v in (*VARIANTS, "told") for s in splits),
            *(f"told.{s}.told.told_vs_hard" for s in splits),
            *(f"told.{v}.gap_closed" for v in (*VARIANTS[2:], "told")),
            "told.told.gap_closed_vs_hard",
        ],
        "tradeoff": ["tradeoff.mixed.capability", "tradeoff.mixed.in_range.w1", "tradeoff.mixed.held_out.w1"],
        "finetuning": [f"finetune.{v}.validation_loss" for v in VARIANTS[1:]],
    }
    assert {name: [f["id"] for f in claims.evaluate(CHAPTERS[name], study)] for name in CHAPTERS} == wanted


def test_numbers_stand_in_their_findings_as_they_are(findings: dict[str, Finding], study: Run) -> None:
    table = pd.read_parquet(study.root / "structured" / "tiny" / "soft" / "settings.parquet")
    at_most = (table["valid_mass"] + table["certificate"])[table["split"] == "unseen"].median()
    assert findings["structured.unseen.soft.valid_mass_at_most"]["value"] == pytest.approx(at_most)
    few = findings["positions.soft.exact_total_variation"]  # nine questions say nothing
    assert (few["value"], few["low"], few["high"]) == (None, None, None)
    enough = findings["positions.hard.exact_total_variation"]
    assert (enough["value"], enough["low"], enough["high"]) == (0.3, 0.2, 0.4)
    loss = findings["finetune.hard.validation_loss"]
    assert (loss["value"], loss["low"], loss["high"]) == (2.5, 2.0, 3.0)
    assert loss["source"] == "results/finetune/tiny/hard/seed-11.json#validation_loss"
    agreement = findings["structured.sampled.agreement"]
    assert (agreement["value"], agreement["unit"]) == (2 / 3, "share of 12")  # of all but those with ordinary examples
    assert findings["novelty.base.distinct"]["unit"] == "answers of 3"
    assert findings["tradeoff.mixed.capability"]["verdict"] == "supported"
    assert findings["language.paraphrases.soft.error_vs_format"]["source"].endswith("soft/paraphrases.parquet")
    only_own = {f["claim"] for f in findings.values() if str(f["id"]).endswith(".nw1") and f["claim"]}
    assert len(only_own) == 3 * len(set(study.own) & set(VARIANTS))
