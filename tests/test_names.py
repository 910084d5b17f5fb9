"""Names as text: shown, compared, and to bytes and back."""

import json

import numpy as np
import pytest

from tfhash import names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cats", "cats"),
        ("Grüße, 犬, नमस्ते, 👩‍🚀, ‏עברית", "Grüße, 犬, नमस्ते, 👩‍🚀, ‏עברית"),
        (r"a\b $5_^{ `|<b>", r"a\b $5_^{ `|<b>"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud83d", r"\ud83d"),  # half of a pair, as a broken JSON may have it
        ("a\nb\tc\rd\0", r"a\nb\tc\rd\x00"),
        ("\x1b[31mred\x7f\x9b", r"\x1b[31mred\x7f\u009b"),
        ("photo\u202egpj.exe\u2028", r"photo\u202egpj.exe\u2028"),
    ],
)
def test_shown(text, expected):
    assert names.shown(text) == expected
    assert names.shown(expected) == expected
    assert expected.encode("utf-8")


def test_shown_takes_paths(tmp_path):
    assert names.shown(tmp_path / "\udcff") == f"{tmp_path}/\\xff"


def test_composed_and_decomposed_names_are_the_same():
    assert names.normal("cafe\u0301/\udce9") == "café/\udce9" == names.normal("café/\udce9")


def test_a_name_is_found_in_another_composition_unless_two_are_like_it():
    one, two = "café", "cafe\u0301"
    assert names.finder([two, "dog"])(one) == two
    assert names.finder([one, two])(one) == one and names.finder([one, two])(two) == two
    angstroms = ["\u00c5", "A\u030a"]  # and U+212B has the same normal form
    assert names.finder(angstroms)("\u212b") == "\u212b"
    assert names.finder(["dog"])("cat") == "cat"


def test_bytes_that_are_no_utf8_are_no_text():
    assert names.is_text("犬 é\x1b") and not names.is_text("caf\udce9")


def test_any_bytes_are_a_name_and_come_back():
    every = bytes(range(256)) + "犬".encode()
    text = names.decoded(every)
    assert names.encoded(text) == every
    assert json.loads(json.dumps(text)) == text


def test_names_survive_files(tmp_path):
    text = names.decoded(b"caf\xe9/\xff.png")
    np.savez(tmp_path / "ids.npz", ids=np.array([text]))
    with np.load(tmp_path / "ids.npz", allow_pickle=False) as file:
        assert file["ids"].tolist() == [text]
    with open(tmp_path / "a.csv", "w", encoding=names.ENCODING, errors=names.ERRORS) as file:
        file.write(text)
    assert (tmp_path / "a.csv").read_bytes() == b"caf\xe9/\xff.png"
