"""What a payload and a filter may hold."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.search.index import Index
from tfhash.search.values import as_json, check_where, from_json, plain, readings

PAYLOAD = [
    {"n": 1, "é": "x", 'q"r': "y", "a.b": 5, "": 0},
    {"label": "caf\udce9", "labels": ["cat"], "back\\slash": 2.5},
    {"n": -(2**63), 'q"r': ["y"]},
    'text with q"r',
    None,
]


@pytest.fixture
def index():
    codes = np.arange(5, dtype=np.uint8)[:, None]
    return Index(codes, ids=list("abcde"), code_length=8, payload=PAYLOAD)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"n": [1, 7]}, "a"),
        ({"n": -(2**63)}, "c"),
        ({"n": 1.0}, "a"),
        ({"é": "x"}, "a"),
        ({'q"r': "y"}, "ac"),
        ({'q"r': {"y", "z"}, "n": 1}, "a"),
        ({'q"r': []}, ""),
        ({"back\\slash": 2.5}, "b"),
        ({"a.b": 5}, "a"),
        ({"": 0}, "a"),
        ({"labels": "cat"}, "b"),
        ({}, "abcde"),
    ],
)
def test_any_name_can_be_filtered_by(index, where, expected):
    (found,) = index.search(np.zeros((1, 1), np.uint8), radius=8, where=where).ids
    assert sorted(found) == list(expected)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ({"n": 10**30}, "`where`: n=1000.*; allowed: whole numbers of 64 bits"),
        ({"n": 2**63}, "`where`: n=9223372036854775808; allowed: whole numbers of 64 bits"),
        ({"n": [1, float("nan")]}, "`where`: n=nan; allowed: finite numbers"),
        ({"n": float("inf")}, "`where`: n=inf; allowed: finite numbers"),
        ({"l": "caf\udce9"}, r"`where`: l='caf.*'; allowed: text that is UTF-8, without NUL"),
        ({"l": "a\0"}, "`where`: l=.*; allowed: text that is UTF-8, without NUL"),
        ({"caf\udce9": 1}, r"`where`: caf\\xe9; allowed: names that are UTF-8"),
        ({"l": None}, "`where`: l=None; allowed: text, numbers, True and False"),
        ({"l": {"a": 1}}, "`where`: l=.*; allowed: text, numbers"),
        ({"l": range(3)}, r"`where`: l=range\(0, 3\); allowed: text, numbers"),
        ("n=1", "`where`: 'n=1'; allowed: a dict such as"),
    ],
)
def test_what_no_item_can_have_is_one_line(index, where, line):
    with pytest.raises(UserError, match=line) as caught:
        index.search(np.zeros((1, 1), np.uint8), where=where)
    str(caught.value).encode()  # any terminal can show it
    assert "\n" not in str(caught.value)


def test_a_checked_filter_has_lists():
    assert check_where({"a": 1, 2: ("x", True)}) == {"a": [1], "2": ["x", True]}
    assert check_where(None) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", ["3", 3]),
        ("true", ["true", True]),
        ("-2.5e3", ["-2.5e3", -2500.0]),
        ("9" * 30, ["9" * 30]),
        ("9" * 9_000, ["9" * 9_000]),
        ("1e999", ["1e999"]),
        ("NaN", ["NaN"]),
        ("-Infinity", ["-Infinity"]),
        ("[" * 100_000, ["[" * 100_000]),
        ("[1]", ["[1]"]),
        ("null", ["null"]),
        ('"cat"', ['"cat"']),
    ],
)
def test_readings_of_a_value(text, expected):
    found = readings(text)
    assert found == expected and [type(one) for one in found] == [type(one) for one in expected]


def test_payload_as_text_and_back():
    for payload in PAYLOAD:
        assert from_json(as_json(payload)) == payload
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    for value in ({1}, float("nan"), nested):
        with pytest.raises(UserError, match="`payload`: .* is no JSON"):
            as_json(value)


def test_what_is_shown_of_a_payload():
    shown = plain({"caf\udce9": ["\ud800", 1.5, None, True], "a\n": "é"})
    assert shown == {r"caf\xe9": [r"\ud800", 1.5, None, True], r"a\n": "é"}


def test_ids_that_are_no_text_are_one_line(index):
    code = np.zeros((1, 1), np.uint8)
    for use in (
        lambda: index.add(code, ids=["\ud800"]),
        lambda: index.remove(["\ud800"]),
        lambda: index.codes(["\ud800"]),
    ):
        with pytest.raises(UserError, match=r"`ids`: \\ud800; allowed: text, and names of files"):
            use()
    assert len(index) == 5
