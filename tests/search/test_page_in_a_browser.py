"""The search page in headless Chromium: a real upload, keys, widths; nothing from outside."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from tfhash.search import build
from tfhash.search.index import Index

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra page")
pytest.importorskip("starlette", reason="needs the extra page")

from tfhash.search.page.app import make_app  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture
def address(photos, fake_encoder):
    """A server of the page over 70 photos of noise, one of which has markup in its name."""
    (photos / "c/2.png").rename(photos / "c/<img src=x onerror=alert(1)>.png")
    index = Index(code_length=12, model="m1")
    build.update(index, fake_encoder(), "photos/**", drop=True)
    ids = index.ids()
    payload = [{"label": name.split("/")[1]} for name in ids]
    index.add(index.codes(ids), ids=ids, payload=payload, replace=True)
    index.remember(folder=str(photos.parent.resolve()))
    app = make_app(index, fake_encoder(), ["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def status(page, words):
    page.locator("#status", has_text=words).wait_for()


def test_a_person_finds_images(address, browser, tmp_path):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append("a dialog"))
    page.goto(address)
    status(page, "Some images of the index")
    assert page.inner_text("#about") == "70 images, codes of 12 bits"
    tiles = page.locator("#results button")

    page.set_input_files("#file", "photos/a/0.png")
    status(page, "24 found in")
    assert tiles.nth(0).locator(".distance").inner_text() == "0 bits"
    assert tiles.nth(0).locator(".name").inner_text() == "photos/a/0.png"
    assert tiles.nth(0).locator(".payload").inner_text() == "label: a"
    far = tiles.nth(23)
    count = int(far.locator(".distance").inner_text().split()[0])
    assert far.locator(".bits i").count() == 12
    assert far.locator(".bits i.differs").count() == count > 0

    page.fill("#k", "3")
    page.fill("#where", "label=c")
    page.press("#where", "Enter")
    status(page, "3 found in")
    assert {tiles.nth(n).locator(".payload").inner_text() for n in range(3)} == {"label: c"}
    page.fill("#where", "label")
    page.press("#where", "Enter")
    status(page, "where: 'label'; allowed: NAME=VALUE")
    page.fill("#where", "")
    page.fill("#radius", "12")
    page.press("#radius", "Enter")
    status(page, "70 found in")
    assert page.locator(".name", has_text="<img src=x onerror=alert(1)>").count() == 1

    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    second = tiles.nth(1).locator(".name").inner_text()
    page.keyboard.press("Enter")
    page.locator("#hint", has_text=second).wait_for()
    status(page, "70 found in")
    assert tiles.nth(0).locator(".distance").inner_text() == "0 bits"
    assert "#" in page.url
    page.screenshot(path=tmp_path / "wide.png")
    (refused,) = said  # the filter without a value
    assert "400 (Bad Request)" in refused
    assert all(url.startswith((address, "blob:")) for url in asked)


@pytest.mark.parametrize("width", [320, 768])
def test_it_fits_phones_and_tablets(address, browser, width, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 700})
    page.goto(address)
    status(page, "Some images of the index")
    boxes = [tile.bounding_box() for tile in page.locator("#results button").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert len({round(box["x"]) for box in boxes}) >= 2
    long = shutil.copy("photos/a/0.png", tmp_path / f"{90 * 'x'}.png")
    page.set_input_files("#file", long)
    status(page, "24 found in")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is(address, browser, scheme):
    """The page behind, what stands on it, and an error: each readable, by the ratio of WCAG."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(address)
    status(page, "Some images of the index")
    page.fill("#where", "label")
    page.press("#where", "Enter")
    status(page, "where: 'label'")
    shown = page.evaluate(
        """() => {
          const canvas = document.createElement("canvas").getContext("2d");
          const rgb = (color) => {
            canvas.fillStyle = color;
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const of = (name, what) => rgb(getComputedStyle(document.querySelector(name))[what]);
          return [of("body", "backgroundColor"), of("body", "color"), of("#about", "color"),
                  of("#status", "color")];
        }"""
    )
    behind, *before = [luminance(color) for color in shown]
    assert behind > 0.9 if scheme == "light" else behind < 0.05
    for found in before:
        assert (max(found, behind) + 0.05) / (min(found, behind) + 0.05) >= 4.5


def luminance(color):
    """Relative luminance of sRGB, by the formula of WCAG 2."""
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_fields_count_before_the_first_question_and_are_asked_for_at_once(address, browser):
    page = browser.new_page()
    page.goto(address)
    status(page, "Some images of the index")
    tiles = page.locator("#results button")
    assert tiles.count() == 24
    asked = []
    page.on("request", lambda request: "/api/search" in request.url and asked.append(request.url))
    page.fill("#k", "5")
    page.fill("#where", "label=b")
    page.press("#where", "Enter")
    sync_api.expect(tiles).to_have_count(5)
    assert {tiles.nth(n).locator(".payload").inner_text() for n in range(5)} == {"label: b"}
    page.wait_for_timeout(300)
    assert len(asked) == 1


def test_back_leads_to_uploads_and_to_the_beginning(address, browser):
    page = browser.new_page()
    page.goto(address)
    status(page, "Some images of the index")
    tiles = page.locator("#results button")
    names = page.locator(".name")
    drawn = {}
    for name in ("a/0.png", "b/1.png"):
        with page.expect_response("**/api/search?*"):
            page.set_input_files("#file", f"photos/{name}")
        status(page, "24 found in")
        drawn[name] = names.all_inner_texts()
    assert drawn["a/0.png"] != drawn["b/1.png"]
    tiles.nth(3).click()
    page.wait_for_url("**/#*")
    for name in ("b/1.png", "a/0.png"):
        page.go_back()
        page.locator("#hint", has_text=name[2:]).wait_for()
        sync_api.expect(names).to_have_text(drawn[name])
        assert page.locator("#asked").get_attribute("src").startswith("blob:")
    page.go_back()
    status(page, "Some images of the index")
    assert page.locator("#asked").is_hidden()
    page.go_forward()
    page.locator("#hint", has_text="0.png").wait_for()


def test_an_address_with_a_number_is_a_question(address, browser):
    page = browser.new_page()
    page.goto(f"{address}#75")  # they begin at 70, for all were replaced once
    status(page, "24 found in")
    assert page.locator(".distance").first.inner_text() == "0 bits"
    assert "?index=" in page.locator("#asked").get_attribute("src")
