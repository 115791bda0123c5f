"""Lines of JSON: what the fast parser refuses is read as the standard library reads it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.lines import line_of, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_it_parses_as_the_standard_library_does(value: Any) -> None:
    for line in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")):
        assert parse(line) == json.loads(line)


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_a_line_holds_the_row(row: dict[str, Any]) -> None:
    line = line_of(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse(line) == json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))


def test_long_numbers_stay_whole() -> None:
    """orjson makes floats of integers that 64 bits do not hold; identifiers may be as long."""
    for number in (2**64 - 1, 2**64, -(2**63) - 1, 10**30):
        assert parse(f'{{"id": [{number}]}}') == {"id": [number]}
        assert isinstance(parse(str(number)), int)


def test_what_is_no_json_elsewhere() -> None:
    assert math.isnan(parse('{"a": NaN}')["a"])
    assert parse(b'"\\ud800"') == "\ud800"
    assert line_of({"text": "a\ud800b"}) == b'{"text":"a?b"}\n'
    with pytest.raises(json.JSONDecodeError, match="Expecting"):
        parse("{")
