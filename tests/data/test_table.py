"""The data set csv: labels of a table, and every flaw that a table or its folder can have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfhash.data import sources, splits, table
from tfhash.errors import UserError

NUS_WIDE = Path(__file__).parents[3] / "shared" / "data" / "nus_wide_21_lists"
SEPARATED = "path,labels\na.png,sea;sky\nb/c.png,sky\nd.png,\n"
COLUMNS = "path,sea,sky\na.png,1,1\nb/c.png,0,1\nd.png,0,0\n"


def write(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), colour, np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images of one colour each; e.png stands in no table below."""
    root = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b/c.png", "d.png", "e.png")):
        write(root / name, (10 * number, 10, 20))
    return root


def load(photos: Path, content: str | bytes, **arguments) -> sources.ImageSet:
    path = photos.parent / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return sources.load("csv", data_dir=photos, labels_csv=path, image_size=2, **arguments)


@pytest.mark.parametrize("content", [SEPARATED, COLUMNS], ids=["separated", "columns"])
def test_both_forms_say_the_same(photos, content):
    """Sorted by path and by class; an image that is not in the table has no label either."""
    read = load(photos, content)
    assert read.name == "csv" and read.class_names == ("sea", "sky")
    assert read.ids == ("a.png", "b/c.png", "d.png", "e.png")
    assert read.labels.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
    assert read.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30] and read.images.shape == (4, 2, 2, 3)
    assert read.notes == ("2 images without a label, 1 of them not in the CSV",)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + SEPARATED,  # Excel begins with a mark
        SEPARATED.replace("\n", "\r\n"),
        "path , labels\n a.png , sky ;sea;; sky\n\n./b//c.png,sky;\nd.png,\n",
        'labels,path\n"sea;sky",a.png\nsky,"b/c.png"\n,d.png\n',
        "path,labels\nb/c.png,sky\nd.png,\na.png,sky;sea\n",
    ],
    ids=["byte order mark", "Windows", "spaces", "quotes", "order"],
)
def test_the_way_of_writing_changes_nothing(photos, content):
    """Positions, ids and labels, of which the fingerprint of a split is made, stay the same."""
    plain, other = load(photos, SEPARATED), load(photos, content)
    for field in ("ids", "class_names", "notes"):
        assert getattr(other, field) == getattr(plain, field)
    np.testing.assert_array_equal(other.labels, plain.labels)


def test_what_is_odd_is_counted(photos):
    write(photos / "copy.png", (0, 10, 20))  # the bytes of a.png
    (photos / "more.csv").write_text("no image")
    (photos / ".hidden.png").write_text("no image")
    read = load(photos, "path,sea,moon,sky\na.png,1,0,1\nb/c.png,0,0,1\nd.png,0,0,0\n")
    assert read.class_names == ("sea", "sky") and read.labels.shape == (5, 2)
    assert read.notes == (
        "1 files that are no images passed over: .csv 1",
        "1 classes without images: moon",
        "3 images without a label, 2 of them not in the CSV",
        "1 images repeat another one; each stands in the part of the split where that one does "
        "(`duplicates`=group)",
    )


def test_other_columns_are_named(photos):
    read = load(photos, "path,date,labels,camera\na.png,1999,sea;sky,x\nd.png,2000,sky,y\n")
    assert read.labels.tolist() == [[1, 1], [0, 0], [0, 1], [0, 0]]
    assert read.notes[0] == "columns of the CSV ignored: date, camera"


MISSING = SEPARATED + "z.png,sky\nno/such.png,moon\n"


def test_paths_without_a_file_are_refused(photos):
    """Of five paths two; the first in the order of lines. A hidden file is none."""
    message = (
        r"labels.csv: 2 of 5 paths have no file in .*photos, the first is z.png in line 5; .*skip"
    )
    with pytest.raises(UserError, match=message):
        load(photos, MISSING)
    (photos / ".hidden.png").touch()
    with pytest.raises(UserError, match="1 of 4 paths have no file .* .hidden.png"):
        load(photos, SEPARATED + ".hidden.png,sea\n")


def test_paths_without_a_file_and_unreadable_ones_are_skipped_and_counted(photos):
    (photos / "d.png").write_text("this is no image, whatever its name says")
    with pytest.raises(UserError, match="1 of 4 files are unreadable, the first is d.png"):
        load(photos, SEPARATED)
    read = load(photos, MISSING, unreadable="skip")
    assert read.ids == ("a.png", "b/c.png", "e.png")
    assert read.labels.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert read.images[:, 0, 0, 0].tolist() == [0, 10, 30]
    assert read.notes == (
        "1 unreadable files skipped",
        "2 paths of the CSV without a file skipped",
        "1 classes without images: moon",
        "1 images without a label, 1 of them not in the CSV",
    )


REFUSED = {
    "empty": ("", ", line 1: '', without a column path; allowed"),
    "no header": ("a.png,sea\nb/c.png,sky\n", "line 1: 'a.png,sea', which looks like a row, no he"),
    "no path": ("file,labels\na.png,sea\n", "line 1: 'file,labels', without a column path; all"),
    "path alone": ("path\na.png\n", "line 1: 'path', without labels; allowed"),
    "semicolons": ("path;labels\na.png;sea\n", "line 1: 'path;labels', with ';' between the col"),
    "tabs": ("path\tlabels\na.png\tsea\n", "with '\\t' between the columns; allowed"),
    "a class twice": ("path,sea,sea\na.png,1,0\n", "line 1: 'path,sea,sea', with 'sea' twice"),
    "class without name": ("path,sea,\na.png,1,0\n", "'path,sea,', with a column without a name"),
    "UTF-16": (SEPARATED.encode("utf-16"), "line 1: a byte 0; allowed: a CSV in utf-8"),
    "too short": (SEPARATED + "e.png\n", "line 5: 1 fields; allowed: 2"),
    "too long": ("path,labels\na.png,sea,sky\n", "line 2: 3 fields; allowed: 2"),
    "twice": (SEPARATED + "./a.png,sky\n", "line 5: a.png stands there twice, first in line 2; al"),
    "outside": (SEPARATED + "../a.png,sky\n", "line 5: path is '../a.png'; allowed"),
    "outside within": (SEPARATED + "b/../../a.png,sky\n", "line 5: path is 'b/../../a.png'"),
    "absolute": (SEPARATED + "/a.png,sky\n", "line 5: path is '/a.png'"),
    "no path in row": (SEPARATED + ",sky\n", "line 5: path is ''"),
    "folder itself": (SEPARATED + ".,sky\n", "line 5: path is '.'"),
    "no number": ("path,sea,sky\na.png,1,yes\n", "line 2: sky is 'yes'; allowed: 0 or 1"),
    "no cell": ("path,sea,sky\na.png,1,\n", "line 2: sky is ''; allowed: 0 or 1"),
    "one class": ("path,labels\na.png,sea\nb/c.png,sea\n", "1 classes with images; at least 2"),
    "no label": ("path,labels\na.png,\n", "0 classes with images; at least 2"),
    "two lines": ('path,labels\n"a\nb.png",sea\nb/c.png\n', "line 4: 1 fields"),
    "labels in Latin-1": (b"path,labels\na.png,caf\xe9\n", "line 2: labels is 'caf"),
    "jpeg": (b"\xff\xd8\xff\xe0", "utf-8"),
    "open quote": ('path,labels\n"' + "x" * 200_000, "field larger"),
}


def test_names_that_differ_in_composition_or_are_no_utf8_are_found(photos):
    """The folder has é as two characters, the CSV as one; another name has a byte of Latin-1."""
    write(photos / "cafe\u0301.png", (9, 9, 9))
    write(photos / "caf\udce9.png", (8, 8, 8))
    found = load(photos, SEPARATED.encode() + "café.png,sea\n".encode() + b"caf\xe9.png,sky\n")
    rows = dict(zip(found.ids, found.labels.tolist(), strict=True))
    assert rows["cafe\u0301.png"] == [1, 0] and rows["caf\udce9.png"] == [0, 1]
    message = "line 6: cafe\u0301.png stands there twice, written differently in line 5; allowed"
    with pytest.raises(UserError, match=message):
        load(photos, SEPARATED + "café.png,sea\ncafe\u0301.png,sea\n")


def test_paths_with_backslashes_are_found_and_told(photos):
    read = load(photos, SEPARATED.replace("b/c.png", r"b\c.png"))
    assert read.labels.tolist() == load(photos, SEPARATED).labels.tolist()
    assert r"1 paths of the CSV have \ where folders end" in read.notes
    write(photos / r"b\c.png", (200, 0, 0))  # on Linux this is a name, and goes before
    read = load(photos, SEPARATED.replace("b/c.png", r"b\c.png"))
    assert dict(zip(read.ids, read.labels.tolist(), strict=True)) == {
        "a.png": [1, 1], r"b\c.png": [0, 1], "b/c.png": [0, 0], "d.png": [0, 0], "e.png": [0, 0]
    }  # fmt: skip


def test_a_comma_in_a_label_is_told(photos):
    """ "sea,odd" is one label: perhaps meant as two."""
    read = load(photos, 'path,labels\na.png,"sea,odd"\nb/c.png,sky\n')
    assert read.class_names == ("sea,odd", "sky")
    told = "1 labels of the CSV have a comma in them, such as 'sea,odd'; several labels have ';'"
    assert any(note.startswith(told) for note in read.notes)
    with pytest.raises(UserError, match="line 2: 3 fields; allowed: 2, .* needs quotes, several"):
        load(photos, "path,labels\na.png,sea,odd\n")


@pytest.mark.parametrize("path", ["A.PNG", "photos/a.png", "C/a.png"])
def test_a_file_that_may_be_meant_is_told(photos, path):
    """Another case, and a path that begins elsewhere."""
    message = f"the first is {path} in line 2 \\(there is a.png\\); remove them"
    with pytest.raises(UserError, match=message):
        load(photos, f"path,labels\n{path},sea\nb/c.png,sky\n")


def test_backslashes_and_slashes_for_one_file_are_two_rows(photos):
    with pytest.raises(UserError, match="line 5: b/c.png stands there twice, .* in line 3; all"):
        load(photos, SEPARATED + "b\\c.png,sea\n")


def test_labels_that_are_one_to_a_reader_are_told(photos):
    read = load(photos, "path,labels\na.png,Sea;sky\nb/c.png,sea\nd.png,unlabelled\n")
    assert read.class_names == ("Sea", "sea", "sky", "unlabelled")
    assert read.notes[:2] == (
        "Sea, sea differ in case or composition alone, yet are classes of their own",
        "unlabelled is a class here; an image without a label has none",
    )


def test_columns_are_known_in_any_case(photos):
    read = load(photos, SEPARATED.replace("path,labels", " Path , LABELS"))
    assert read.labels.tolist() == load(photos, SEPARATED).labels.tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SEPARATED.replace(",", "|"), r"line 1: 'path\|labels', with '\|' between the c"),
        ("path,labels\nC:\\photos\\a.png,sea\n", r"line 2: path is .*relative to `data_dir`"),
    ],
)
def test_what_other_programs_write_is_refused_with_the_cause(photos, content, words):
    with pytest.raises(UserError, match=words):
        load(photos, content)


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_table_is_one_line(photos, content, words):
    with pytest.raises(UserError) as refused:
        load(photos, content)
    message = str(refused.value)
    assert message.startswith(f"`labels_csv`: {photos.parent / 'labels.csv'}")
    assert words in message and "\n" not in message


def test_a_class_whose_only_image_cannot_be_read_is_no_class(photos):
    """Two before reading, one after: only a.png has `sea`."""
    (photos / "a.png").write_text("this is no image, whatever its name says")
    with pytest.raises(UserError, match="1 classes with images; at least 2"):
        load(photos, SEPARATED, unreadable="skip")


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="`labels_csv`: .*none.csv.*No such file"):
        table.read_table(tmp_path / "none.csv")


def test_a_csv_alone_gives_labels_and_no_pixels(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,labels\nb.jpg,sea;sky\na.jpg,\nc.jpg,sky\n")
    images, labels, class_names, ids, notes = table.read_without_images(path)
    assert images.shape == (3, 0, 0, 3) and images.dtype == np.uint8
    assert (class_names, ids) == (("sea", "sky"), ("a.jpg", "b.jpg", "c.jpg"))
    np.testing.assert_array_equal(labels, [[0, 0], [1, 1], [0, 1]])
    assert notes == (
        "labels alone, no images", "1 images without a label, 0 of them not in the CSV"
    )  # fmt: skip


@pytest.mark.skipif(not NUS_WIDE.is_dir(), reason=f"no {NUS_WIDE}")
def test_the_protocol_of_the_papers_on_real_nus_wide_labels(tmp_path):
    """100 queries and 100 labelled images for each of 21 concepts, of 12,600 images."""
    rows = [line for name in ("train", "test") for line in (NUS_WIDE / f"{name}.txt").open()]
    concepts = [f"concept_{number:02d}" for number in range(21)]
    path = tmp_path / "labels.csv"
    lines = [",".join(row.split()) for row in rows]
    path.write_text("\n".join([",".join(["path", *concepts]), *lines]) + "\n")
    image_set = sources.load("csv", labels_csv=path)
    parts = splits.make(image_set, seed=0, queries_per_class=100, labelled_per_class=100)
    assert len(parts.query) == 2100 and len(parts.labelled) + len(parts.validation) == 2100
    assert len(parts.database) == len(image_set.ids) - 2100 == 10_500
    assert (image_set.labels[parts.query].sum(axis=0) >= 100).all()
    assert image_set.labels[parts.query].sum() > 2100  # many have several
