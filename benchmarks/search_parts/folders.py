"""A folder of photos that changes."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from tfhash.search.index import Index


def run(model: str) -> None:
    """5,000 photos of noise; then 50 changed, 50 new and 50 gone."""
    from PIL import Image

    from tfhash.search import build
    from tfhash.search.encoder import Encoder

    rng = np.random.default_rng(0)

    def draw(path: Path) -> None:
        small = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(small).resize((640, 480)).save(path, quality=85)

    encoder = Encoder(model)
    with tempfile.TemporaryDirectory() as where:
        photos = Path(where, "photos")
        photos.mkdir()
        for number in range(5_000):
            draw(photos / f"{number:04d}.jpg")

        def built(name: str) -> tuple[Index, float]:
            path = Path(where, name)
            index = (
                Index.load(path)
                if path.exists()
                else Index(code_length=encoder.code_length, path=path, model=encoder.fingerprint)
            )
            before = time.perf_counter()
            changes = build.update(index, encoder, f"{photos}/**", drop=True)
            spent = time.perf_counter() - before
            print(f"{name}: {changes} in {spent:.1f} s", flush=True)
            return index, spent

        built("first")[0].close()
        for number in range(50):
            draw(photos / f"{number:04d}.jpg")
            draw(photos / f"new{number:04d}.jpg")
            (photos / f"{4_900 + number:04d}.jpg").unlink()
        second, _ = built("first")
        fresh, _ = built("fresh")
        ids = fresh.ids()
        same = second.ids() == ids and (second.codes(ids) == fresh.codes(ids)).all()
        print(f"the second build is {'the same as' if same else 'OTHER than'} a fresh one")
        shutil.rmtree(photos)
