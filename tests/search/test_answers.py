"""What people see of answers: lines, a page, thumbnails."""

from __future__ import annotations

import base64
import io
import os
import re

import numpy as np
import pytest
from PIL import Image, ImageFile

from tfhash import files
from tfhash.search import answers
from tfhash.search.encoder import Limits
from tfhash.search.index import Found, Index


def found(ids, distances, cut=0):
    return Found([ids], [np.array(distances)], [[None] * len(ids)], np.array([cut]))


def test_lines_of_an_answer(capsys):
    answers.print_found(["a\n.jpg"], found(["b", "c"], [0, 3], cut=1200))
    assert capsys.readouterr().out == (
        "a\\n.jpg: 2 found, 1,200 more at 3 bits\n     0  b\n     3  c\n"
    )
    answers.print_found(["q"], found([str(n) for n in range(25)], range(25)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 22 and lines[-1].strip() == "and 5 more"
    answers.print_found(["q"], found([], []))
    assert capsys.readouterr().out == "q: 0 found\n"


def test_a_page_is_one_file_that_asks_for_nothing(tmp_path):
    """Pictures are in it; names are text, whatever stands in them."""
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    (tmp_path / "<b>.png").write_bytes(b"")
    path = tmp_path / "new" / "page.html"
    ids = ["red.png", "<b>.png", "no\udce9.png"]
    answers.write_page(
        path, ["<script>alert(1)</script>"], found(ids, [0, 1, 2]), tmp_path, tmp_path
    )
    page = path.read_text(encoding="utf-8")
    assert "<script>" not in page and "<b>" not in page
    assert not re.search(r"(src|href)=.(?!data:)", page) and "url(" not in page
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (128, 85) and image.getpixel((60, 40))[0] > 240
    assert "&lt;b&gt;.png" in page and r"no\xe9.png" in page and "2 bits" in page
    assert page.count('class="none"') == 3


def test_a_thumbnail_is_what_a_person_sees(tmp_path):
    """Turned as Exif says, transparent parts white, never larger than it was."""
    image = Image.new("RGB", (40, 20), "blue")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    sizes = []
    for name in ("turned.jpg", "clear.png"):
        with Image.open(io.BytesIO(answers.thumbnail(tmp_path / name))) as small:
            sizes.append((small.size, small.getpixel((5, 5))))
    assert sizes[0][0] == (20, 40) and sizes[1] == ((10, 10), (255, 255, 255))


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff damaged", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_has_no_thumbnail(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(files.FileError):
        answers.thumbnail(tmp_path / "x.jpg")


@pytest.mark.parametrize("name", ["large.png", "large.jpg"])
def test_a_picture_of_too_many_pixels_has_no_thumbnail(tmp_path, monkeypatch, name):
    """It is refused before it is decoded: one pixel more than a million is."""
    limits = Limits(max_pixels=10**6)
    Image.new("L", (1000, 1001)).save(tmp_path / name)
    Image.new("L", (1000, 1000)).save(tmp_path / f"right-{name}")
    assert answers.thumbnail(tmp_path / f"right-{name}", limits=limits)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(files.FileError, match="^1000 x 1001 pixels; allowed: 1 million$"):
        answers.thumbnail(tmp_path / name, limits=limits)


def test_a_file_has_a_thumbnail_where_the_model_takes_it(tmp_path):
    """33 MiB, one more than usual."""
    path = tmp_path / "large.png"
    Image.new("L", (9, 9)).save(path)
    os.truncate(path, 33 << 20)
    with pytest.raises(files.FileError, match="33.0 MiB; allowed: 32.0 MiB"):
        answers.thumbnail(path)
    assert answers.thumbnail(path, limits=Limits(max_bytes=33 << 20))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_pictures_of_all_kinds_are_made_small_before_they_are_copied(tmp_path, monkeypatch, mode):
    """White and large; nothing that is converted is larger than a rough thumbnail."""
    ending = "jpg" if mode == "CMYK" else "png"
    if mode == "I;16":
        image = Image.fromarray(np.full((900, 1200), 65535, np.uint16))
    else:
        white = {"LA": (255, 255), "P": 1, "CMYK": (0, 0, 0, 0), "1": 1, "L": 255}
        image = Image.new(mode, (1200, 900), white.get(mode, (255,) * len(mode)))
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 255, 255])
    path = tmp_path / f"white.{ending}"
    image.save(path)
    sizes, plain = [], Image.Image.convert

    def convert(self, *arguments, **options):
        if arguments and arguments[0] == "RGBA":
            sizes.append(self.size)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Image.Image, "convert", convert)
    with Image.open(io.BytesIO(answers.thumbnail(path, 60))) as small:
        assert small.size == (60, 45) and min(small.getpixel((30, 20))) > 250
    assert sizes and max(max(size) for size in sizes) <= 240


def test_items_as_answers_to_others():
    codes = np.array([[0, 0], [0, 16], [255, 240]], np.uint8)
    index = Index(codes, ids=["a", "b", "c"], code_length=12, payload=[1, None, "x"])
    answered = answers.found_of(index, [["b", "c"], []], ["a", "c"])
    assert answered.ids == [["b", "c"], []]
    assert [d.tolist() for d in answered.distances] == [[1, 12], []]
    assert answered.payload == [[None, "x"], []] and answered.ties_cut.tolist() == [0, 0]
