"""Pieces of a page: what they say and that what they are given cannot break their HTML."""

import base64
import math
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from calibnb.book import page


def test_a_number_shows_its_interval_when_it_is_pointed_at() -> None:
    found = ElementTree.fromstring(page.number(0.754, -0.001, 1.238))
    assert (found.text, found.get("title")) == ("0.75", "95\N{NO-BREAK SPACE}% interval: 0.00 to 1.24")


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [(math.nan, 0, 1, "–"), (0.5, math.nan, math.nan, "0.50"), (-0.001, 1, math.inf, None)],
)
def test_a_number_without_value_or_interval_is_plain(value: float, low: float, high: float, shown: str | None) -> None:
    assert page.number(value, low, high) == (
        shown or '<span class="number" title="95\N{NO-BREAK SPACE}% interval: 1.00 to inf">0.00</span>'
    )


def test_a_fold_keeps_its_parts_in_order_and_its_title_plain() -> None:
    found = ElementTree.fromstring(str(page.fold("a < b", page.answer("one"), "<p>two</p>").data))
    assert [part.tag for part in found] == ["summary", "p", "p"]
    assert [part.text for part in found] == ["a < b", "one", "two"]
    assert "open" not in found.attrib


def test_a_card_links_to_the_page_of_its_result() -> None:
    made = page.cards(
        [
            page.Card("What & how", page.number(1, 0, 2), "of <em>it</em>", "mixing.html"),
            page.Card("b", "–", "", "b.html"),
        ]
    )
    first, second = ElementTree.fromstring(str(made.data))
    assert first.get("href") == "mixing.html" and second.get("href") == "b.html"
    assert first.find("strong").text == "What & how"  # type: ignore[union-attr]
    assert "".join(first.itertext()).endswith("1.00of it")


def plain(html: str) -> str:
    """The words of a piece of HTML."""
    return "".join(ElementTree.fromstring(f"<p>{html}</p>").itertext())


@pytest.mark.parametrize(
    ("names", "text"), [(["soft"], "soft"), (["soft", "hard"], "soft and hard"), (["a", "b", "c"], "a, b and c")]
)
def test_names_are_listed_as_a_sentence_has_them(names: list[str], text: str) -> None:
    assert page.listed(names) == text


def test_values_name_what_they_are_of_and_stop_where_a_sentence_would() -> None:
    numbers = {"base": "1", "format": "2", "<a>": "3", "b": "4", "c": "5"}
    assert plain(page.values(numbers)) == "1 as the model comes, 2 with the format control, 3 with <a> and 4 with b"
    assert plain(page.values({"c": "5"})) == "5 with c"
    assert plain(page.values(numbers, most=1)) == "1 as the model comes"
    assert page.values({}) == "not known"


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("supported", "with soft and hard, it is nearer than with the format control"),
        ("refuted", "with soft and hard, it is farther than with the format control"),
        ("open", "no difference from the format control is shown"),
        ("not determined", "the difference from the format control is not determined"),
        ("not comparable", "nothing can be compared with the format control"),
    ],
)
def test_every_verdict_has_its_words(verdict: str, text: str) -> None:
    found = page.outcomes({"format": {"soft": verdict, "hard": verdict}}, "it is nearer", "it is farther")
    assert plain(found) == text


def test_where_some_take_a_side_the_others_are_not_named() -> None:
    beside = {"base": {"a": "open", "b": "supported", "c": "not determined"}, "format": {"a": "supported", "c": "open"}}
    assert plain(page.outcomes(beside, "better", "worse")) == (
        "with b, better than with the model as it comes; with a, than with the format control; otherwise no difference "
        "is shown or the difference is not determined"
    )
    both = {"base": {"a": "refuted", "b": "supported"}}
    reference = "the model as it comes"
    assert plain(page.outcomes(both, "better", "worse")) == (
        f"with b, better than with {reference}; with a, worse than with {reference}"
    )
    assert page.outcomes({"base": {}, "soft": {}}, "x", "y") == ""


def test_where_none_takes_a_side_different_verdicts_are_told_apart() -> None:
    beside = {"base": {"a": "open", "b": "open"}, "soft": {"a": "open", "b": "not comparable"}, "format": {}}
    assert plain(page.outcomes(beside, "better", "worse")) == (
        "no difference from the model as it comes is shown; with a, no difference from soft is shown; with b, nothing "
        "can be compared with soft"
    )


def test_what_is_so_beside_several_is_said_once() -> None:
    alike = {"base": {"a": "supported"}, "format": {"a": "supported"}}
    assert plain(page.outcomes(alike, "better", "worse")).endswith(
        "than with the model as it comes and the format control"
    )
    apart = {"base": {"a": "open", "b": "open"}, "format": {"a": "open"}}
    assert plain(page.outcomes(apart, "better", "worse")) == (
        "no difference from the model as it comes is shown; with a, no difference from the format control is shown"
    )


def test_what_is_spoken_are_the_values_by_group_without_those_that_do_not_exist() -> None:
    rows = [
        ("m", "in", "base", 1.254),
        ("m", "in", "soft", -0.001),
        ("m", "out", "soft", math.nan),
        ("n", "in", "b", 3),
    ]
    frame = pd.DataFrame(rows, columns=["model", "split", "variant", "value"])
    assert page.spoken(frame, ["model", "split"]) == "m, in: base 1.25, soft 0.00. n, in: b 3.00."
    assert page.spoken(frame.iloc[:1], ["split"], 0) == "in: base 1."
    assert page.spoken(frame.iloc[:0], ["split"]) == ""


def test_a_picture_is_a_png_at_twice_the_resolution_and_its_words() -> None:
    figure, _ = plt.subplots(figsize=(2, 1), dpi=100)
    plt.close(figure)
    data, about = page.Picture(figure, "soft 0.5")._repr_png_()
    image = base64.b64decode(data)
    width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
    assert image.startswith(b"\x89PNG") and about["alt"] == "soft 0.5"
    assert (2 * about["width"], 2 * about["height"]) == (pytest.approx(width, abs=1), pytest.approx(height, abs=1))


def test_code_is_set_as_such_and_the_rest_is_plain() -> None:
    assert page.code("a `b` < c") == "a <code>b</code> &lt; c"


def test_pieces_stand_below_each_other() -> None:
    assert (
        page.together(page.answer("a"), page.paragraphs("b", "c")).data == '<p class="answer">a</p>\n<p>b</p>\n<p>c</p>'
    )
