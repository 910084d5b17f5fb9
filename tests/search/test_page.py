"""The server of the search page: what it answers, and what it does not give away."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tfhash.codes import unpack
from tfhash.search import build
from tfhash.search.encoder import Limits
from tfhash.search.index import Index

pytest.importorskip("starlette", reason="needs the extra page")
testclient = pytest.importorskip("starlette.testclient", reason="needs httpx")

from tfhash.search.page import app as app_module  # noqa: E402
from tfhash.search.page.app import MOST, make_app  # noqa: E402


@pytest.fixture
def index(photos, fake_encoder):
    index = Index(code_length=12, model="m1")
    build.update(index, fake_encoder(), "photos/**", drop=True)
    ids = index.ids()
    index.add(
        index.codes(ids),
        ids=ids,
        payload=[{"label": name.split("/")[1]} for name in ids],
        replace=True,
    )
    index.remember(folder=str(photos.parent.resolve()))
    return index


@pytest.fixture
def client(index, fake_encoder):
    app = make_app(index, fake_encoder(), ["testserver"])
    with testclient.TestClient(app, raise_server_exceptions=True) as client:
        yield client


def content(name="photos/a/0.png"):
    with open(name, "rb") as file:
        return file.read()


def test_a_photo_is_answered_with_its_nearest(client, index):
    answer = client.post("/api/search?k=5", content=content()).json()
    code = index.codes(["photos/a/0.png"])
    found = index.search(code, k=5)
    assert [item["id"] for item in answer["items"]] == found.ids[0]
    assert [item["distance"] for item in answer["items"]] == found.distances[0].tolist()
    assert answer["found"] == 5 and answer["ties_cut"] == found.ties_cut[0]
    assert answer["code"] == unpack(code, 12)[0].tolist()
    for item in answer["items"]:
        bits = unpack(index.codes([item["id"]]), 12)[0]
        assert item["differs"] == np.flatnonzero(bits != answer["code"]).tolist()
        assert len(item["differs"]) == item["distance"]
        assert item["payload"] == {"label": item["id"].split("/")[1]}


def test_an_item_is_asked_for_by_its_number(client, index):
    first = client.post("/api/search?k=1", content=content("photos/b/4.png")).json()["items"][0]
    again = client.get(f"/api/search?number={first['number']}&k=1").json()["items"][0]
    assert again["id"] == first["id"] == "photos/b/4.png" and again["distance"] == 0
    about = client.get("/api/index").json()
    assert about == {
        "count": 70, "code_length": 12, "model": "m1", "encodes": True, "first": about["first"],
        "key": index.key,
    }  # fmt: skip
    assert index.names_of([about["first"]]) == ["photos/a/0.png"]


def test_radius_and_filter(client, index):
    row = index.first_number()
    answer = client.get(f"/api/search?number={row}&radius=3&where=label=b").json()
    code = index.codes(index.names_of([row]))
    expected = index.search(code, radius=3, where={"label": "b"}).ids[0]
    assert [item["id"] for item in answer["items"]] == expected and len(expected) > 1
    both = client.get(f"/api/search?number={row}&k=70&where=label=b&where=label=c").json()
    assert {item["payload"]["label"] for item in both["items"]} == {"b", "c"}
    assert both["found"] == 46


def test_no_more_answers_than_a_page_shows(client, index, monkeypatch):
    codes = np.zeros((MOST + 50, 2), np.uint8)
    index.add(codes, ids=[f"same{n}" for n in range(len(codes))])
    row = index.numbers_and_codes(["same0"])[0][0]
    asked = []
    plain = index._store.of_numbers
    monkeypatch.setattr(
        index._store,
        "of_numbers",
        lambda what, numbers: [asked.append(numbers), plain(what, numbers)][1],
    )
    for query in ("k=1000000", "radius=12"):
        answer = client.get(f"/api/search?number={row}&{query}").json()
        assert len(answer["items"]) == MOST
    assert answer["found"] == MOST + 50 + 70  # counted, but not fetched
    assert len(asked) > 2 and max(map(len, asked)) == MOST


def test_thumbnails_by_number_are_made_once(client, index, photos, tmp_path):
    row = index.first_number()
    response = client.get(f"/thumbnail/{row}")
    assert response.headers["content-type"] == "image/jpeg"
    assert "max-age" in response.headers["cache-control"]
    with Image.open(io.BytesIO(response.content)) as image:
        assert image.size == (9, 9)
    (photos / "a/0.png").unlink()
    assert client.get(f"/thumbnail/{row}").content == response.content
    (photos / "a/12.png").unlink()
    gone = client.get(f"/thumbnail/{index.numbers_and_codes(['photos/a/12.png'])[0][0]}")
    assert gone.status_code == 400 and "No such file" in gone.json()["error"]


def test_pictures_stay_right_when_another_process_writes_the_index_anew(tmp_path, monkeypatch):
    """Each item is an image of one grey; clicked, drawn and cached by its number."""
    monkeypatch.chdir(tmp_path)
    names = [f"{n:02d}.png" for n in range(12)]
    for n, name in enumerate(names):
        Image.new("L", (32, 32), 20 * n).save(name)
    codes = np.arange(12, dtype=np.uint8)[:, None]
    index = Index(codes, ids=names, code_length=8, path="i")
    with testclient.TestClient(make_app(index, None, ["testserver"])) as client:

        def items(number):
            return client.get(f"/api/search?number={number}&k=12").json()["items"]

        def check(shown):
            for item in shown:
                with Image.open(
                    io.BytesIO(client.get(f"/thumbnail/{item['number']}").content)
                ) as p:
                    assert abs(p.getpixel((5, 5))[0] - 20 * int(item["id"][:2])) < 3

        before = items(0)
        check(before)
        with Index.load("i") as other:
            other.remove(names[:4])
            assert other.compact() == 4
            other.add(codes[:1], ids=["00.png"])
        gone = client.get("/api/search?number=0")
        assert gone.status_code == 400 and "no image of the index has that number" in gone.text
        later = items(before[-1]["number"])
        assert {item["id"] for item in later} == {"00.png", *names[4:]}
        check(later)
    index.close()


def test_payload_that_is_no_utf8_is_shown_as_text_can_be(client, index):
    payload = {"caf\udce9": ["na\udcefve", 1, None, {"a": "\ud800"}]}
    index.add(np.zeros((1, 2), np.uint8), ids=["odd"], payload=[payload])
    number = index.numbers_and_codes(["odd"])[0][0]
    answer = client.get(f"/api/search?number={number}&radius=0&where={'n=' + '[' * 5000}")
    assert answer.status_code == 200 and answer.json()["items"] == []
    answer = client.get(f"/api/search?number={number}&radius=0")
    assert answer.status_code == 200
    (shown,) = [item["payload"] for item in answer.json()["items"] if item["id"] == "odd"]
    assert shown == {r"caf\xe9": [r"na\xefve", 1, None, {"a": r"\ud800"}]}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://testserver"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://testserver:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_page_of_another_site_makes_no_work(client, index, headers, status):
    number = index.first_number()
    answers = [
        client.post("/api/search?k=1", content=content(), headers=headers),
        client.get(f"/api/search?number={number}&k=1", headers=headers),
        client.get(f"/thumbnail/{number}", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [status] * 3
    link = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/", headers=link).status_code == 200


def test_what_asks_the_index_is_not_done_in_the_loop_of_the_server(client, index, monkeypatch):
    """Where a search holds the lock, other requests are still taken."""
    in_loop = []
    for name in ("first_number", "search", "names_of"):
        plain = getattr(index, name)

        def called(*arguments, plain=plain, **options):
            try:
                in_loop.append(bool(asyncio.get_running_loop()))
            except RuntimeError:
                in_loop.append(False)
            return plain(*arguments, **options)

        monkeypatch.setattr(index, name, called)
    first = client.get("/api/index").json()["first"]
    client.get(f"/api/search?number={first}")
    client.get(f"/thumbnail/{first}")
    assert in_loop == [False] * 4


def test_few_pictures_are_decoded_at_a_time(client, index, monkeypatch):
    now, most = [0], [0]
    lock = threading.Lock()

    def slow(path, side, limits):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return b"jpeg"

    monkeypatch.setattr(app_module, "thumbnail", slow)
    numbers = index.numbers_and_codes(index.ids()[:16])[0]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda number: client.get(f"/thumbnail/{number}"), numbers)]
    assert {answer.content for answer in answers} == {b"jpeg"} and most[0] == app_module.DECODED


@pytest.mark.parametrize(
    "path",
    [
        "/thumbnail/9999",
        "/thumbnail/-1",
        "/thumbnail/" + "9" * 5000,
        "/thumbnail/..%2f..%2fetc%2fpasswd",
        "/thumbnail/photos/a/0.png",
        "/photos/a/0.png",
        "/..%2fphotos/a/0.png",
        "/page.js/../app.py",
        "/static/app.py",
    ],
)
def test_no_file_is_had_by_its_name(client, path):
    response = client.get(path)
    assert response.status_code in (400, 404)
    assert b"PNG" not in response.content and b"import" not in response.content


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("number=x", "number: 'x'; allowed: that of an image"),
        ("number=", "number: ''; allowed"),
        ("number=" + "9" * 40, "number: "),
        ("number=9999", "number: 9999; no image of the index has that number"),
        ("number=FIRST&k=0", "k: 0; allowed: whole numbers from 1 on"),
        ("number=FIRST&k=-3", "k: '-3'; allowed: whole numbers"),
        ("number=FIRST&k=99999999999", "k: '99999999999'; allowed: whole numbers"),
        ("number=FIRST&radius=" + "0" * 9 + "9" * 5000, "radius: '000000000999"),
        ("number=FIRST&radius=x", "radius: 'x'; allowed: whole numbers"),
        ("number=FIRST&where=x", "where: 'x'; allowed: NAME=VALUE"),
    ],
)
def test_odd_questions_are_one_line(client, index, query, words):
    query = query.replace("FIRST", str(index.first_number()))
    response = client.get(f"/api/search?{query}")
    assert response.status_code == 400 and words in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not a JPEG or PNG image"),
        (b"<svg></svg>", "not a JPEG or PNG image"),
        (b"\x89PNG\r\n\x1a\n REFUSED", "the image is damaged, or has more pixels"),
    ],
)
def test_odd_uploads_are_one_line(client, body, words):
    response = client.post("/api/search", content=body)
    assert response.status_code == 400 and words in response.json()["error"]


def test_an_upload_is_read_no_further_than_a_file_may_be_long(index, fake_encoder):
    encoder = fake_encoder()
    encoder.limits = Limits(max_bytes=2 << 20)
    sent = []

    def parts():
        for _ in range(64):
            sent.append(1)
            yield b"\xff" * (1 << 20)

    with testclient.TestClient(make_app(index, encoder, ["testserver"])) as client:
        response = client.post("/api/search", content=parts())
    assert response.status_code == 400
    assert response.json()["error"] == "the file is larger than 2.0 MiB"


def test_pictures_are_as_large_as_the_model_takes(index, fake_encoder, photos):
    encoder = fake_encoder()
    encoder.limits = Limits(max_bytes=33 << 20)
    os.truncate(photos / "a/0.png", 33 << 20)
    for one, status in ((encoder, 200), (None, 400)):
        with testclient.TestClient(make_app(index, one, ["testserver"])) as client:
            assert client.get(f"/thumbnail/{index.first_number()}").status_code == status


def test_without_a_model_only_items_are_asked_for(index):
    with testclient.TestClient(make_app(index, None, ["testserver"])) as client:
        response = client.post("/api/search", content=content())
        assert response.status_code == 400 and "no model" in response.json()["error"]
        assert client.get(f"/api/search?number={index.first_number()}").status_code == 200


def test_only_its_own_names_lead_to_it_and_nothing_is_loaded_from_elsewhere(client, index):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    for path, kind in (
        ("/", "text/html"), ("/page.js", "javascript"), ("/page.css", "text/css"),
        ("/favicon.ico", "image/svg"), ("/api/index", "application/json"),
        (f"/thumbnail/{index.first_number()}", "jpeg"),
    ):  # fmt: skip
        response = client.get(path)
        assert response.status_code == 200 and kind in response.headers["content-type"]
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text + client.get("/page.js").text + client.get("/page.css").text
    assert "//" not in page.replace("// ", "").replace("http://www.w3.org", "")
    assert "innerHTML" not in page
