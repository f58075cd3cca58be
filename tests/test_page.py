"""Pieces of a page: what they say and that what they are given cannot break their HTML."""

import math
from xml.etree import ElementTree

import pytest

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
