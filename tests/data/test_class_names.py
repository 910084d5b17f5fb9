"""class_names: which names say that there is no label, or name a part of a data set."""

import pytest

from tfhash.data import class_names


@pytest.mark.parametrize(
    "name", ["unlabelled", "Unlabeled", "UNLABELLED", " un_labelled ", "un-labeled"]
)
def test_names_that_say_that_there_is_no_label(name):
    assert class_names.is_unlabelled(name)


@pytest.mark.parametrize("name", ["labelled", "unlabelled2", "unlabelled cats", ""])
def test_names_of_classes_that_come_close(name):
    assert not class_names.is_unlabelled(name)


@pytest.mark.parametrize(
    "name", ["train", "Val", "VALIDATION", "test_set", "train2017", "dev ", "test-images", "Test 1"]
)
def test_names_of_parts(name):
    assert class_names.is_part(name)


@pytest.mark.parametrize("name", ["trains", "trainer", "valley", "testimony", "evaluation form"])
def test_names_of_things_that_come_close_to_parts(name):
    """A class of trains is one: with two such names nothing would be told."""
    assert not class_names.is_part(name)


def test_notes_on_names_that_are_one_to_a_reader():
    """Case, composition, and both at once; the last two are one in NFC and lower case."""
    found = class_names.notes(["Cat", "cat", "dog", "caf\u00e9", "CAFE\u0301"])
    assert found == [
        "Cat, cat differ in case or composition alone, yet are classes of their own",
        "caf\u00e9, CAFE\u0301 differ in case or composition alone, yet are classes of their own",
    ]
    assert class_names.notes(["cat", "dog", "caf\u00e9", "cafe"]) == []


def test_a_class_called_unlabelled_is_told():
    (note,) = class_names.notes(["Unlabelled", "cat"])
    assert note == "Unlabelled is a class here; an image without a label has none"


def test_one_part_may_well_be_a_class():
    assert class_names.note_on_parts(["test", "cat", "dog"]) == []
    (note,) = class_names.note_on_parts(["test", "cat", "Train"])
    assert note.startswith("test, Train are taken for classes; ") and "`data_dir`" in note
