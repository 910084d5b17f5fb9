"""The search page over a million codes: from an upload to drawn results, in headless Chromium."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image
from playwright import sync_api

from search_parts.made import made
from tfhash.search import scan
from tfhash.search.encoder import Encoder
from tfhash.search.index import Index
from tfhash.search.page.app import make_app

COUNT, UPLOADS = 10**6, 10
MOST_SEEN = 24  # results that the page asks for
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")


def run(model: str) -> None:
    """Wall seconds of uploads of a photo of 640x480 px, after a first one. model: an export."""
    encoder = Encoder(model)
    bits = encoder.code_length
    codes = scan.to_codes(made(COUNT, bits, 1_000, 0.08), bits)
    index = Index(
        codes,
        ids=[f"{n:07d}" for n in range(COUNT)],
        code_length=bits,
        model=encoder.fingerprint,
    )
    app = make_app(index, encoder, ["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        spent = _uploads(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/")
    finally:
        server.should_exit = True
        thread.join()
    print(
        f"from upload to {MOST_SEEN} drawn results over {COUNT:,} codes of {bits} bits: median "
        f"{np.median(spent) * 1e3:.0f} ms, most {max(spent) * 1e3:.0f} ms of {UPLOADS} (wall)"
    )


def _uploads(address: str) -> list[float]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    rng = np.random.default_rng(0)
    spent = []
    with sync_api.sync_playwright() as playwright, tempfile.TemporaryDirectory() as where:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page()
        page.goto(address)
        page.locator("#results button").first.wait_for()
        for number in range(UPLOADS + 1):
            photo = Path(where, f"{number}.jpg")
            pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(pixels).resize((640, 480)).save(photo)
            page.evaluate("document.querySelector('#status').textContent = ''")
            before = time.perf_counter()
            page.set_input_files("#file", str(photo))
            page.locator("#status", has_text="found in").wait_for()
            page.wait_for_function(
                f"document.querySelectorAll('#results button').length === {MOST_SEEN}"
            )
            spent.append(time.perf_counter() - before)
        browser.close()
    return spent[1:]
