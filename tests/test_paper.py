"""The original study's claims and the first page: what several verdicts say together, in words, cards and rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from made_up import VARIANTS, tables
from test_chapter import OWN

from calibnb.benchmarks import registry
from calibnb.book import first
from calibnb.evidence import claims, paper
from calibnb.laws.specs import Spec

WORDS = ("supported", "refuted", "open", "not comparable", "not determined", "not measured")


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ([], "not measured"),
        (["supported", "supported"], "supported"),
        (["refuted"], "refuted"),
        (["supported", "open"], "supported in part"),
        (["supported", "not comparable"], "supported in part"),
        (["supported", "not measured"], "supported in part"),
        (["refuted", "not determined"], "refuted in part"),
        (["supported", "open", "refuted"], "mixed"),
        (["not comparable", "not comparable"], "not comparable"),
        (["not comparable", "open"], "open"),
        (["not measured", "not determined"], "open"),
    ],
)
def test_verdicts_together(verdicts: list[str], said: str) -> None:
    assert paper.together(verdicts) == said
    assert paper.together(verdicts[::-1]) == said
    contrary = said.replace("supported", "-").replace("refuted", "supported").replace("-", "refuted")
    assert paper.together([paper.opposite(verdict) for verdict in verdicts]) == contrary


def test_all_of_a_claim_must_hold_and_nothing_may_contradict_it() -> None:
    for some in itertools.product(WORDS, repeat=3):
        said = paper.together(some)
        assert (said == "supported") == all(verdict == "supported" for verdict in some)
        assert ("supported" in said or said == "mixed") == ("supported" in some)
        assert ("refuted" in said or said == "mixed") == ("refuted" in some)


def test_a_claim_is_judged_by_its_findings_and_by_what_is_missing() -> None:
    one = paper.Evidence("of base", {"soft": "a.soft", "hard": "a.hard"})
    claim = paper.PaperClaim("c", "all", "structured", "n", (one, paper.Evidence("", {"": "b"}, against=True)))
    both = {"a.soft": {"verdict": "supported"}, "a.hard": {"verdict": "supported"}, "b": {"verdict": "refuted"}}
    assert claim.verdict(both) == "supported"
    assert claim.verdict(both | {"b": {"verdict": "supported"}}) == "mixed"
    assert claim.verdict({"a.soft": both["a.soft"], "b": both["b"]}) == "supported in part"
    assert claim.verdict({}) == "not measured"


@pytest.fixture
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Those of a made-up study, of its first model."""
    monkeypatch.chdir(tmp_path)
    tables(OWN.root, OWN.models, VARIANTS)
    rows = [f for b in registry.benchmarks().values() for f in claims.evaluate((b.claims,), OWN)]
    return {str(row["id"]): row for row in rows if "@" not in str(row["id"])}


def test_every_finding_that_a_claim_names_is_a_claim_of_the_study(findings: dict[str, dict[str, Any]]) -> None:
    asked = {name for claim in paper.CLAIMS for line in claim.evidence for name in line.findings.values()}
    assert {name for name in asked if not findings[name]["claim"]} == set()


# ------------------------------------------------------------------------------------------------ the first page


def with_verdicts(found: dict[str, Any], split: str, verdicts: dict[tuple[str, str], str]) -> dict[str, Any]:
    """Findings of which those on the fidelity of a split have other verdicts."""
    names = {f"structured.{split}.{m}.w1_vs_{r}": verdict for (m, r), verdict in verdicts.items()}
    return found | {name: found[name] | {"verdict": verdict} for name, verdict in names.items()}


def of_all(verdict: str) -> dict[tuple[str, str], str]:
    return dict.fromkeys(itertools.product(paper.METHODS, paper.REFERENCES), verdict)


def everywhere(found: dict[str, Any], verdict: str) -> dict[str, Any]:
    for split in first.WHERE:
        found = with_verdicts(found, split, of_all(verdict))
    return found


def test_the_answer_names_model_splits_and_sides(findings: dict[str, Any]) -> None:
    closer = "calibrated answers come closer to the target than those of the model as it comes and the format control"
    where = "between the settings trained on, on unseen parameters and on held-out families"
    all_gained = everywhere(findings, "supported")
    assert first.answer("a<b", all_gained) == f"<strong>Yes</strong> for <code>a&lt;b</code>: {where} {closer}."
    in_part = with_verdicts(all_gained, "unseen", of_all("open") | {("hard", "base"): "refuted"})
    assert first.answer("tiny", in_part) == (
        "<strong>In part</strong> for <code>tiny</code>: between the settings trained on and on held-out families "
        f"{closer}; on unseen parameters hard comes less close to the target than the model as it comes, and no other "
        "difference is shown."
    )
    alone = with_verdicts(everywhere(findings, "open"), "in_range", of_all("supported"))
    assert first.answer("tiny", alone) == (
        f"<strong>In part</strong> for <code>tiny</code>: between the settings trained on {closer}; on unseen "
        "parameters and on held-out families no difference is shown."
    )
    halves = dict.fromkeys([("soft", "base"), ("soft", "format")], "supported")
    apart = first.answer("tiny", with_verdicts(all_gained, "held_out", of_all("open") | halves))
    references = "the model as it comes and the format control"
    assert apart.endswith(
        f"on held-out families soft comes closer to the target than {references}, and no other difference is shown."
    )
    both = dict.fromkeys([("soft", "base"), ("hard", "format")], "supported")
    both |= dict.fromkeys([("hard", "base"), ("soft", "format")], "refuted")
    apart = first.answer("tiny", with_verdicts(all_gained, "held_out", both))
    assert apart.endswith(
        "soft comes closer to the target than the model as it comes, and hard comes closer to the target than the "
        "format control, and hard comes less close to the target than the model as it comes, and soft comes less close "
        "to the target than the format control."
    )
    for verdict, word, told in (("open", "Not shown", "no difference"), ("refuted", "No", "a loss")):
        both = everywhere(findings, verdict)
        assert first.answer("tiny", both) == f"<strong>{word}</strong> for <code>tiny</code>: {where} {told} is shown."
    assert first.answer("tiny", {}).endswith("it was not measured.")


def test_what_was_not_made_keeps_no_gain_from_being_one(findings: dict[str, Any]) -> None:
    gained = everywhere(findings, "supported")
    soft = {name: row for name, row in gained.items() if ".hard." not in name}
    assert first.answer("tiny", soft).startswith("<strong>Yes</strong>")
    assert paper.CLAIMS[0].verdict(soft) == "supported in part"  # of both methods it speaks


@pytest.mark.parametrize("methods", [(), ("soft",), ("soft", "hard")])
def test_cards_have_a_number_and_a_page_each(findings: dict[str, Any], methods: Sequence[str]) -> None:
    missing = set(paper.METHODS) - set(methods)
    found = {name: row for name, row in findings.items() if not missing & set(name.split("."))}
    cards = ElementTree.fromstring(str(first.cards(found).data))
    assert [card.get("href") for card in cards] == ["structured.html", "findings.html", "capability.html"]
    works, over, price = (card.findall("span") for card in cards)
    for spans, name, scale in ((works, "structured.in_range.{}.w1_vs_base", 1), (price, "capability.{}.vs_base", 100)):
        shown = [float(str(span.text)) for span in spans[0].findall("span")]
        assert shown == [pytest.approx(scale * found[name.format(m)]["value"], abs=0.051) for m in methods]
    carried = [
        row["verdict"]
        for name, row in found.items()
        if name.endswith("_vs_base") and name.split(".")[0] not in ("structured", "capability", "perplexity")
        if not name.startswith("told") and ".mixed." not in name and row["claim"]
    ]
    assert over[0].text == (f"{carried.count('supported')} of {len(carried)}" if methods else "–")


def test_the_paper_s_claims_are_a_row_each_with_a_column_a_model(findings: dict[str, Any]) -> None:
    table = ElementTree.fromstring(str(first.beside_the_paper({"tiny": findings, "x & y": {}}).data))
    assert [cell.text for cell in table.findall(".//th/code")] == ["tiny", "x & y"]
    rows = table.findall("tbody/tr")
    assert len(rows) == len(paper.CLAIMS)
    for row, claim in zip(rows, paper.CLAIMS, strict=True):
        about, reported, here, absent = row
        assert about.find("a").get("href") == f"{claim.page}.html" and reported.text == claim.reported  # type: ignore[union-attr]
        assert here.find("strong").text == claim.verdict(findings)  # type: ignore[union-attr]
        assert len(here.findall("span")) == sum(len(line.findings) for line in claim.evidence)
        assert "".join(absent.itertext()) == "not measured"


def test_a_number_that_does_not_exist_is_a_dash() -> None:
    assert first.number({"value": None, "low": None, "high": None}) == "–"
    assert first.number({"value": -0.048, "low": None, "high": None}, 100, 1) == "-4.8"


def specs_of(*points: tuple[str, float]) -> list[Spec]:
    return [Spec("bernoulli", (("p", p),), split, False) for split, p in points]  # type: ignore[arg-type]


def test_the_typical_setting_is_that_of_the_median_factor() -> None:
    asked = specs_of(*(("held_out", p / 10) for p in (1, 2, 3, 4)), ("unseen", 0.5))
    factors = dict(zip([spec.label for spec in asked], (0.2, 0.9, 0.4, 3.0, 1.0), strict=True))
    rows = [
        {"split": spec.split, "family": "bernoulli", "label": spec.label, "variant": variant, "seed": seed}
        | {"nw1": 2.0 if variant == "base" else 2.0 * factors[spec.label] * (1 if seed == 3 else 0.01)}
        | {"nw1_slack": 5.0 if variant == "base" and spec.split == "unseen" else 0.1}
        for spec in asked
        for variant, seeds in (("base", [-1]), ("soft", [29, 3]))
        for seed in seeds
    ]
    settings = pd.DataFrame(rows)
    laws = settings.drop(columns=["nw1", "nw1_slack"]).merge(pd.DataFrame({"value": [0.0, 1.0]}), how="cross")
    laws["mass"] = laws["seed"].map({-1: 0.5, 3: 0.25, 29: 0.1})
    held_out, unseen = first.typical(settings, laws, asked, before="base", after=["soft"])
    assert held_out.setting.title == "bernoulli(p=0.2)"  # of .2, .4, .9 and 3 the larger of the middle two
    assert held_out.distances == {"base": 2.0, "soft": pytest.approx(1.8)}
    assert list(held_out.setting.answers["soft"][1]) == [0.25, 0.25]  # type: ignore[arg-type]
    assert (held_out.heading, unseen.heading) == ("held-out families", "unseen parameters")
    assert math.isnan(unseen.distances["base"]) and unseen.distances["soft"] == 2.0
    (alone, _) = first.typical(settings, laws, asked, before="base", after=[])
    assert set(alone.distances) == {"base", "soft"}
