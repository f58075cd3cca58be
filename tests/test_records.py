"""Records: json is read as it stands, and what cannot be is one line that names the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibnb import json_files
from calibnb.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(value=VALUES)
def test_what_json_writes_is_read_back(value: Any) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        found = json_files.decode(text.encode(), "a")
        assert found == value and json.dumps(found, ensure_ascii=ascii_only) == text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[" * 200_000, "holds brackets within brackets, too deep to be read"),
        ("[" * 200_000 + "]" * 200_000, "holds brackets within brackets, too deep to be read"),
        ('{"a":' * 200_000, "holds brackets within brackets, too deep to be read"),
        ('{"a": ' + "[" * 5_000 + "]" * 5_000 + "}", "holds brackets within brackets, too deep to be read"),
        ("1" * 5_000, "11111111111111111111... is no number that a float holds"),
        ("[-" + "9" * 400 + "]", "-9999999999999999999... is no number that a float holds"),
        ('{"a": 1e999}', "1e999 is no number that a float holds"),
        ('{"a": NaN}', "NaN is no number that a float holds"),
        ("[-Infinity]", "-Infinity is no number that a float holds"),
        ('{"text": "a", "n": 1, "text": "b"}', "the key 'text' is given twice"),
        ('[{"a": {"b\\n": 1, "b\\n": 1}}]', r"the key 'b\n' is given twice"),
        ('{"a": 1', "not json (Expecting ',' delimiter at character 8)"),
        ('{"a": "\\udc00"}', r"holds half of a surrogate pair ('\udc00')"),
        ('{"\\ud800": 1}', r"holds half of a surrogate pair ('\ud800')"),
    ],
)
def test_what_cannot_be_read_is_one_line(line: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        list(json_files.parse(b'{"text": "fine"}\n\n' + line.encode(), "a.jsonl"))
    assert str(error.value) == f"a.jsonl, line 3: {problem}"
