"""files: the walk over real folders with every oddity, and what is opened of a file."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from tfhash import files

JPEG, PNG = b"\xff\xd8\xff" + bytes(20), b"\x89PNG\r\n\x1a\n" + bytes(20)


def write(path: Path, content: bytes = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cats/1.jpg", "cats/old/2.jpg", "dogs/3.jpg"):
        write(tmp_path / name)
    return tmp_path


ALL = ["cats/1.jpg", "cats/old/2.jpg", "dogs/3.jpg"]


def test_files_are_found_sorted_without_hidden_ones(photos):
    write(photos / ".thumbs" / "4.jpg")
    write(photos / "cats" / ".5.jpg")
    found = files.find(photos)
    assert found == files.Found(ALL)
    assert found.notes() == []


@pytest.mark.parametrize("link", ["cats/latest", "a", "cats/old/up"])
@pytest.mark.parametrize("target", [".", "..", "cats"])
def test_a_link_to_a_folder_around_it_ends_there(photos, link, target):
    """cats/latest -> . had found each file forty times."""
    (photos / link).symlink_to(photos / target)
    found = files.find(photos)
    assert found.files == ALL or target == ".."  # the folder above has other files, once each
    assert len(found.files) == len({os.path.realpath(photos / name) for name in found.files})
    assert set(ALL) <= set(found.files)


def test_a_file_keeps_the_name_that_it_has_where_it_lies(photos):
    """Links that sort first take nothing away, and lead to what lies elsewhere."""
    elsewhere = photos.with_name(f"{photos.name}-elsewhere")
    write(elsewhere / "6.jpg")
    (photos / "a best").symlink_to(photos / "cats")
    (photos / "b store").symlink_to(elsewhere)
    (photos / "dogs" / "2.jpg").symlink_to("../cats/old/2.jpg")
    os.link(photos / "dogs" / "3.jpg", photos / "dogs" / "hard.jpg")
    found = files.find(photos)
    assert found.files == ["b store/6.jpg", *ALL]
    assert found.repeated == 3
    assert found.notes() == ["3 links to files or folders already found passed over"]


def test_two_loops_of_links_end(photos):
    """** over two link loops ran for ever: each step had two ways on."""
    for name in ("x", "y"):
        (photos / "cats" / name).symlink_to(photos)
        (photos / "dogs" / name).symlink_to(photos)
    assert files.find(photos).files == ALL
    assert files.match(f"{photos}/**/*.jpg")[1].files == ALL


def test_what_is_no_image_by_name_and_content_is_counted_apart(photos):
    write(photos / "cats" / "Thumbs.db", b"\xd0\xcf\x11\xe0")
    write(photos / "cats" / "1.XMP", b"<xmp>")
    write(photos / "2.xmp", b"")
    write(photos / "noending", PNG)
    write(photos / "text.JPG", b"an error page")
    write(photos / "photo.heic", b"\0\0\0\x18ftypheic")
    found = files.find(photos)
    assert found.files == [*ALL, "noending", "photo.heic", "text.JPG"]
    assert found.others == ["2.xmp", "cats/1.XMP", "cats/Thumbs.db"]
    assert found.notes() == ["3 files that are no images passed over: .db 1, .xmp 2"]


def test_pipes_and_sockets_are_never_opened(photos):
    """A pipe named as an image made reading wait for ever."""
    os.mkfifo(photos / "cats" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.getcwd()
        os.chdir(photos)  # the name of a socket has 108 bytes at most
        try:
            bound.bind("socket")
        finally:
            os.chdir(before)
        found = files.find(photos)
    assert found.files == ALL and found.special == 2
    assert found.notes() == ["2 pipes, sockets or devices passed over"]
    with pytest.raises(files.FileError, match="^not a regular file$"):
        files.read(photos / "cats" / "pipe.jpg")


def test_what_cannot_be_looked_into_is_told(photos):
    (photos / "cats" / "gone.jpg").symlink_to("nowhere")
    (photos / "round").symlink_to("round")
    found = files.find(photos)
    assert found.files == ALL
    assert found.unreadable == {
        "cats/gone.jpg": "No such file or directory",
        "round": "Too many levels of symbolic links",
    }
    with pytest.raises(files.NotReadError, match="^Too many levels of symbolic links$"):
        files.read(photos / "round")
    with pytest.raises(files.FileError, match="^No such file or directory$") as gone:
        files.read(photos / "cats" / "gone.jpg")
    assert not isinstance(gone.value, files.NotReadError)


@pytest.fixture
def of_nobody():
    """A folder in which this process has no rights of root, which may read everything."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(function, *arguments):
    if os.geteuid():
        return function(*arguments)
    os.seteuid(65534)
    try:
        return function(*arguments)
    finally:
        os.seteuid(0)


def test_folders_and_files_without_rights_are_told(of_nobody):
    write(of_nobody / "cats" / "1.jpg")
    write(of_nobody / "dogs" / "2.jpg")
    write(of_nobody / "dogs" / "secret").chmod(0)
    (of_nobody / "cats").chmod(0)
    try:
        found = as_nobody(files.find, of_nobody)
        assert found.files == ["dogs/2.jpg"]
        denied = "Permission denied"
        assert found.unreadable == {"cats": denied, "dogs/secret": denied}
        with pytest.raises(PermissionError):
            as_nobody(files.find, of_nobody / "cats")
    finally:
        (of_nobody / "cats").chmod(0o755)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.find(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", []),
        ("cats/1.jpg", ["cats/1.jpg"]),
        ("cats/*", ["cats/1.jpg"]),
        ("*/*.jpg", ["cats/1.jpg", "dogs/3.jpg"]),
        ("**/*.jpg", ALL),
        ("**", ALL),
        ("**/old/**", ["cats/old/2.jpg"]),
        ("cats/**/?.jpg", ["cats/1.jpg", "cats/old/2.jpg"]),
        ("[c-d]*s/[!3].jpg", ["cats/1.jpg"]),
        ("**/**/3.*", ["dogs/3.jpg"]),
        ("**/*.JPG", []),
    ],
)
def test_patterns_match_as_in_pathlib(photos, pattern, expected):
    head, found = files.match(f"{photos}/{pattern}")
    assert sorted(os.path.relpath(os.path.join(head, name), photos) for name in found.files) == (
        expected
    )
    of_pathlib = {path for path in photos.glob(pattern) if path.is_file()}
    if not pattern.endswith("**"):  # pathlib's stands for folders alone there
        assert {photos / name for name in expected} == of_pathlib


def test_a_link_counts_where_only_its_name_matches(photos):
    (photos / "best").symlink_to("cats")
    head, found = files.match(f"{photos}/b*/*.jpg")
    assert (head, found.files) == (str(photos), ["best/1.jpg"])


def test_a_pattern_enters_no_folder_that_it_does_not_speak_of(of_nobody):
    write(of_nobody / "a" / "1.jpg")
    (of_nobody / "secret").mkdir(0)
    assert as_nobody(files.match, f"{of_nobody}/a*/*")[1].unreadable == {}


def test_read_gives_the_bytes_and_their_state(tmp_path):
    path = write(tmp_path / "a.png", PNG)
    os.utime(path, ns=(0, 123456789))
    assert files.read(path) == files.Content(PNG, len(PNG), 123456789)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"GIF89a", "not a JPEG or PNG image"),
        (JPEG + bytes(30), "0.0 MiB; allowed: .*, by `max_image_megapixels`"),
    ],
)
def test_read_says_why_a_file_is_no_image(tmp_path, content, reason):
    with pytest.raises(files.FileError, match=reason):
        files.read(write(tmp_path / "a.jpg", content), limit=len(JPEG))
    assert files.read(write(tmp_path / "b.jpg", JPEG), limit=len(JPEG)).data == JPEG


def test_read_of_a_huge_file_reads_its_head_alone(tmp_path, monkeypatch):
    """A sparse file of 1.5 GB, once a video and once with the head of an image."""
    video = tmp_path / "video.mp4"
    with video.open("wb") as file:
        file.truncate(1_500_000_000)
    assert files.find(tmp_path).others == ["video.mp4"]
    sizes = []
    opened = files._open

    def counting(path):
        file = opened(path)
        read = file.read
        monkeypatch.setattr(files, "_open", opened)

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *exception):
                file.close()

            def fileno(self):
                return file.fileno()

            def read(self, size):
                sizes.append(size)
                return read(size)

        return Counting()

    with video.open("r+b") as file:
        file.write(JPEG)
    monkeypatch.setattr(files, "_open", counting)
    with pytest.raises(files.FileError, match="1430.5 MiB; allowed: 32.0 MiB"):
        files.read(video)
    assert sizes == [16]
