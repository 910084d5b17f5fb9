"""sources: the real digits, CIFAR-10 where it is prepared, and folders with every flaw."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tfhash.data import sources
from tfhash.errors import UserError

TFDS_DIR = Path(__file__).parents[3] / "shared" / "data" / "tfds"


def write(path: Path, colour, form: str = "PNG") -> Path:
    """A constant 12x10 image: its resized pixels are that colour again (JPEG: nearly)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.uint8(colour), (12, 10, *np.shape(colour)))).save(path, form)
    return path


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    write(tmp_path / "cat" / "b.png", (1, 2, 3))
    write(tmp_path / "cat" / "a" / "deep.png", (4, 5, 6))
    write(tmp_path / "dog" / "grey.png", 77)
    return tmp_path


def image_set(**changes) -> sources.ImageSet:
    fields = {
        "name": "tiny",
        "images": np.zeros((2, 4, 4, 3), np.uint8),
        "labels": np.eye(2, dtype=np.uint8),
        "class_names": ("a", "b"),
        "ids": ("x", "y"),
    }
    return sources.ImageSet(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ("x", "x")}, "ids must be unique, 1 are duplicates"),
        ({"labels": np.full((2, 2), 2, np.uint8)}, "labels must be 0 or 1, received 2"),
        ({"labels": np.eye(2)}, r"expected labels as uint8 \(2, 2\), received float64 \(2, 2\)"),
        ({"class_names": ("a",)}, r"expected labels as uint8 \(2, 1\)"),
        ({"images": np.zeros((2, 4, 5, 3), np.uint8)}, r"expected images as uint8 \(2, 4, 4, 3\)"),
        ({"images": np.zeros((2, 4), np.uint8)}, "expected images as uint8"),
        ({"triplets": np.array([[0, 1]])}, r"triplets must be \[T, 3\] positions below 2"),
        ({"triplets": np.array([[0, 1, 2]])}, r"triplets must be \[T, 3\] positions below 2"),
        ({"first": np.array([0])}, r"first must be \[2\] positions of first images"),
        ({"first": np.array([1, 0])}, r"first must be \[2\] positions of first images"),
    ],
)
def test_image_set_refuses_what_does_not_fit(changes, message):
    image_set()
    with pytest.raises(ValueError, match=message):
        image_set(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "`dataset`=mnist: expected one of digits, cifar10, cifar10_mo"),
        ({"name": "digits", "image_size": 0}, "`image_size`=0: expected at least 1"),
        ({"name": "digits", "unreadable": "keep"}, "`unreadable`=keep: expected refuse or skip"),
        ({"name": "folder"}, "`data_dir`: missing"),
        ({"name": "images"}, "`data_dir`: missing; `dataset`=images needs a folder of images"),
        ({"name": "images", "data_dir": "no/such"}, "`data_dir`=no/such: expected a folder of im"),
        ({"name": "csv", "labels_csv": "no/such"}, "`labels_csv`: no/such: "),
        ({"name": "csv", "data_dir": "."}, "`labels_csv`: missing; `dataset`=csv needs"),
        (
            {"name": "csv", "data_dir": "no/such", "labels_csv": "x.csv"},
            "`data_dir`=no/such: expected a folder of images",
        ),
        ({"name": "digits", "labels_csv": "x.csv"}, "`labels_csv`=x.csv: only with `dataset`=csv"),
        ({"name": "folder", "data_dir": "no/such"}, "`data_dir`=no/such: expected a folder"),
        ({"name": "cifar10"}, r"`data_dir`=: no prepared cifar10 .* tfds.load\("),
        ({"name": "cifar10", "data_dir": "no/such"}, "`data_dir`=no/such: no prepared cifar10"),
    ],
)
def test_load_refuses_and_names_the_flag(arguments, message):
    with pytest.raises(UserError, match=message):
        sources.load(**arguments)


def test_digits_are_the_real_ones():
    """At their own size, 8, grey level g of 16 becomes g * 255 / 16, rounded, in all channels."""
    digits = sources.load("digits", image_size=8)
    expected = np.rint(load_digits().images * 255 / 16)
    for channel in range(3):
        np.testing.assert_array_equal(digits.images[..., channel], expected)
    np.testing.assert_array_equal(digits.labels.argmax(axis=1), load_digits().target)
    assert (digits.labels.sum(axis=1) == 1).all()
    assert digits.ids[0] == "digits/0000" and digits.ids[-1] == "digits/1796"
    assert sources.load("digits").images.shape == (1797, 16, 16, 3)


@pytest.mark.long  # all 60,000 are read; ids of any data set of TFDS have a test of their own
@pytest.mark.skipif(not TFDS_DIR.is_dir(), reason="../shared/data/tfds is not here")
def test_cifar10_stands_in_the_order_of_its_ids():
    """Read through another path: one record, found again under its id with its label."""
    import tensorflow_datasets as tfds

    cifar10 = sources.load("cifar10", data_dir=TFDS_DIR)
    assert cifar10.images.shape == (60_000, 32, 32, 3)
    np.testing.assert_array_equal(cifar10.labels.sum(axis=0, dtype=int), [6000] * 10)
    splits = [("test", 10_000), ("train", 50_000)]
    expected = [f"cifar10/{split}_{i:05d}" for split, count in splits for i in range(count)]
    assert list(cifar10.ids) == expected

    dataset = tfds.load("cifar10", split="train[:1]", data_dir=TFDS_DIR, download=False)
    (record,) = tfds.as_numpy(dataset)
    row = 10_000 + int(record["id"].decode().removeprefix("train_"))
    assert row != 10_000  # the files are in another order
    np.testing.assert_array_equal(cifar10.images[row], record["image"])
    assert cifar10.labels[row].argmax() == record["label"]


def test_folder_reads_sorted_and_recursively(two_classes):
    write(two_classes / ".hidden" / "x.png", 1)
    (two_classes / "cat" / ".DS_Store").write_text("hidden")
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.ids == ("cat/a/deep.png", "cat/b.png", "dog/grey.png")
    assert read.class_names == ("cat", "dog")
    np.testing.assert_array_equal(read.labels, [[1, 0], [1, 0], [0, 1]])
    colours = np.array([(4, 5, 6), (1, 2, 3), (77, 77, 77)])[:, None, None]
    np.testing.assert_array_equal(read.images, np.broadcast_to(colours, (3, 5, 5, 3)))
    assert read.notes == ()
    assert sources.load("folder", data_dir=two_classes).images.shape == (3, 64, 64, 3)


def test_folder_tells_formats_by_content(two_classes):
    """A JPEG named .png is read: a constant colour survives JPEG within rounding."""
    write(two_classes / "dog" / "really_jpeg.png", (200, 100, 50), "JPEG")
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    np.testing.assert_allclose(read.images[3].astype(int), np.full((5, 5, 3), (200, 100, 50)), 0, 2)


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "Unlabelled", "UN-LABELED_ "])
def test_folder_gives_unlabelled_images_no_label(two_classes, name):
    write(two_classes / name / "a.png", 30)
    write(two_classes / name / "b.png", 40)
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.class_names == ("cat", "dog")
    bare = [id_.startswith(name) for id_ in read.ids]
    np.testing.assert_array_equal(read.labels[bare], np.zeros((2, 2)))
    assert read.labels.sum() == 3 and read.notes == ("2 images without a label",)


def test_both_folders_of_unlabelled_images_may_be_there(two_classes):
    for name in ("unlabelled", "Unlabelled"):
        write(two_classes / name / "a.png", len(name) * 20 + name[0].isupper() * 30)
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.class_names == ("cat", "dog") and read.notes == ("2 images without a label",)


def test_folders_that_look_like_parts_of_a_data_set_are_told(tmp_path):
    """photos/train/cats and photos/val/cats: "train" is searched for in "val"."""
    for i, name in enumerate(("Train/cats", "Train/dogs", "val/cats", "val/dogs")):
        write(tmp_path / name / "a.png", 50 * i)
    read = sources.load("folder", data_dir=tmp_path, image_size=5)
    assert read.class_names == ("Train", "val")
    assert read.notes == (
        "Train, val are taken for classes; if they are parts of a data set with the classes "
        "inside, give one of them as `data_dir`, or put the images of a class into one folder: "
        "queries are picked by the split",
    )
    write(tmp_path / "one" / "test" / "a.png", 9)  # a single one may well be a class
    write(tmp_path / "one" / "cat" / "a.png", 99)
    assert sources.load("folder", data_dir=tmp_path / "one", image_size=5).notes == ()


def test_classes_that_differ_in_case_alone_are_told(two_classes):
    write(two_classes / "Cat" / "a.png", 200)
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.class_names == ("Cat", "cat", "dog")
    assert read.notes == (
        "Cat, cat differ in case or composition alone, yet are classes of their own",
    )


def test_summary_has_the_classes_with_counts(two_classes):
    write(two_classes / "unlabelled" / "a.png", 30)
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.summary() == "4 images: 2 classes (cat 2, dog 1), 1 without a label"
    many = image_set(
        class_names=tuple(f"c{i:02}" for i in range(20)),
        labels=np.eye(20, dtype=np.uint8)[[0, 0]],
    )
    assert many.summary() == (
        "2 images: 20 classes (c00 2, c01 0, c02 0, c03 0, c04 0, c05 0, c06 0, c07 0, ..., 0 to 2 "
        "images each, c12 0, c13 0, c14 0, c15 0, c16 0, c17 0, c18 0, c19 0), 0 without a label"
    )


def test_folder_reports_duplicates_empty_classes_and_stray_files(two_classes):
    write(two_classes / "dog" / "copy_of_b.png", (1, 2, 3))
    (two_classes / "emu").mkdir()
    (two_classes / "README").write_text("stray")
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert len(read.ids) == 4 and read.class_names == ("cat", "dog")
    assert read.notes == (
        "1 files that are no images passed over: no ending 1",
        "1 class folders without images: emu",
        "1 images repeat another one; each stands in the part of the split where that one does "
        "(`duplicates`=group)",
        "1 of them have other labels than the image that they repeat",
    )


def test_folder_reports_images_outside_the_class_folders(two_classes):
    write(two_classes / "top.png", (1, 2, 9))
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.notes == ("1 files outside the class folders ignored",)


def damage(root: Path) -> None:
    """Three unreadable files; the first in sorted order is the truncated one."""
    jpeg = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(jpeg, "JPEG")
    (root / "cat" / "b_half.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    (root / "cat" / "text.jpg").write_text("this is no image, whatever its name says")
    write(root / "dog" / "animation.gif", 9, "GIF")


def test_folder_refuses_unreadable_files(two_classes):
    damage(two_classes)
    message = r"3 of 6 files are unreadable, the first is cat/b_half.jpg \([^\n]*JPEG[^\n]*\)"
    with pytest.raises(UserError, match=message) as refused:
        sources.load("folder", data_dir=two_classes, image_size=5)
    assert "\n" not in str(refused.value) and "{{" not in str(refused.value)


def test_folder_skips_names_and_counts_unreadable_files(two_classes, caplog):
    intact = sources.load("folder", data_dir=two_classes, image_size=5)
    damage(two_classes)
    read = sources.load("folder", data_dir=two_classes, image_size=5, unreadable="skip")
    assert read.ids == intact.ids
    np.testing.assert_array_equal(read.images, intact.images)
    np.testing.assert_array_equal(read.labels, intact.labels)
    assert read.notes == ("3 unreadable files skipped",)
    text = "text.jpg: not a JPEG or PNG image"
    logged = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(logged) == 3 and any(message.endswith(text) for message in logged)


@pytest.mark.parametrize("flaw", ["no second folder", "second folder empty", "second unreadable"])
def test_folder_refuses_one_class(tmp_path, flaw):
    write(tmp_path / "cat" / "a.png", 1)
    write(tmp_path / "unlabelled" / "a.png", 2)
    if flaw != "no second folder":
        (tmp_path / "dog").mkdir()
    if flaw == "second unreadable":
        (tmp_path / "dog" / "text.png").write_text("this is no image, whatever its name says")
    with pytest.raises(UserError, match="folder with one class, cat; expected at least two sub"):
        sources.load("folder", data_dir=tmp_path, unreadable="skip")


def test_a_single_folder_that_names_a_part_is_told_where_the_classes_are(tmp_path):
    write(tmp_path / "train" / "cat" / "a.png", 1)
    with pytest.raises(UserError) as refused:
        sources.load("folder", data_dir=tmp_path)
    assert str(refused.value).endswith(f"; if it holds the classes, give {tmp_path / 'train'}")


def test_folder_refuses_no_class(tmp_path):
    with pytest.raises(UserError, match="folder with no class"):
        sources.load("folder", data_dir=tmp_path)


def test_images_have_no_classes_wherever_they_lie(two_classes):
    """A CSV beside them is passed over, what is called an image is not."""
    write(two_classes / "top.png", (7, 8, 9))
    (two_classes / "triplets.CSV").write_text("cat/b.png,top.png,dog/grey.png")
    read = sources.load("images", data_dir=two_classes, image_size=5)
    assert read.name == "images" and read.class_names == ()
    assert read.ids == ("cat/a/deep.png", "cat/b.png", "dog/grey.png", "top.png")
    assert read.labels.shape == (4, 0)
    assert read.notes == ("1 files that are no images passed over: .csv 1",)
    assert read.images[:, 0, 0].tolist() == [[4, 5, 6], [1, 2, 3], [77, 77, 77], [7, 8, 9]]
    (two_classes / "text.jpg").write_text("this is no image, whatever it is called")
    with pytest.raises(UserError, match="1 of 5 files are unreadable, the first is text.jpg"):
        sources.load("images", data_dir=two_classes)


def test_images_refuses_a_folder_without_any(tmp_path):
    with pytest.raises(UserError, match="`data_dir`=.*: no images in it"):
        sources.load("images", data_dir=tmp_path)


def test_folder_with_a_link_to_itself_has_each_image_once(two_classes):
    (two_classes / "cat" / "latest").symlink_to(".")
    (two_classes / "all").symlink_to(".")
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.ids == ("cat/a/deep.png", "cat/b.png", "dog/grey.png")
    assert read.class_names == ("cat", "dog")
    assert "2 links to files or folders already found passed over" in read.notes


def test_folder_refuses_what_cannot_be_looked_into_and_skips_it_when_told(two_classes, caplog):
    (two_classes / "cat" / "other disk").symlink_to("/nowhere")
    message = r"1 folders, links or files could not be looked into, the first is cat/other disk \("
    with pytest.raises(UserError, match=message):
        sources.load("folder", data_dir=two_classes, image_size=5)
    read = sources.load("folder", data_dir=two_classes, image_size=5, unreadable="skip")
    assert read.notes[0] == ("1 folders, links or files could not be looked into and are skipped")
    assert f"skipped {two_classes}/cat/other disk: No such file or directory" in caplog.text


def test_folder_counts_what_is_no_image_and_goes_on(two_classes):
    """A video, thumbnails and a pipe among the photos end nothing; neither do they alone make a
    class."""
    with (two_classes / "cat" / "video.mp4").open("wb") as video:
        video.truncate(1_500_000_000)
    (two_classes / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (two_classes / "papers").mkdir()
    (two_classes / "papers" / "a.pdf").write_bytes(b"%PDF")
    os.mkfifo(two_classes / "dog" / "pipe")
    read = sources.load("folder", data_dir=two_classes, image_size=5)
    assert read.class_names == ("cat", "dog") and len(read.ids) == 3
    assert read.notes == (
        "3 files that are no images passed over: .db 1, .mp4 1, .pdf 1",
        "1 pipes, sockets or devices passed over",
        "1 class folders without images: papers",
    )


@pytest.mark.parametrize("name", ["folder", "images"])
def test_the_limit_of_an_image_is_told_with_the_flag_that_raises_it(two_classes, name):
    write(two_classes / "dog" / "scan.png", 0).unlink()
    Image.new("1", (1500, 1000)).save(two_classes / "dog" / "scan.png")
    message = "1500 x 1000 px; allowed: 1000000 px in all, by `max_image_megapixels`"
    with pytest.raises(UserError, match=f"dog/scan.png .*{message}"):
        sources.load(name, data_dir=two_classes, image_size=5, max_image_megapixels=1)
    read = sources.load(name, data_dir=two_classes, image_size=5, max_image_megapixels=2)
    assert "dog/scan.png" in read.ids
