"""What a search found, for people: lines on a terminal, and a page with pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfhash import files
from tfhash.errors import unwritable
from tfhash.names import encoded, shown
from tfhash.search import scan
from tfhash.search.encoder import Limits
from tfhash.search.found import Found

THUMBNAIL = 128  # px
_SHOWN = 20  # answers of a query on a terminal
_USUAL = Limits()
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; background: Canvas; color: CanvasText;
       color-scheme: light dark; }
section { border-top: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); padding: 1rem 0; }
h2 { font-size: 1rem; overflow-wrap: anywhere; }
ul { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; padding: 0; }
figure { margin: 0; width: 128px; } img, .none { width: 128px; height: 128px; object-fit: contain; }
.none { display: grid; place-items: center; outline: 1px dashed; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
"""


def print_found(names: Sequence[str], found: Found) -> None:
    """A line a query, and one for each of its first answers: the distance and the id."""
    for number, name in enumerate(names):
        ids, distances = found.ids[number], found.distances[number]
        cut = found.ties_cut[number]
        more = f", {cut:,} more at {distances[-1]} bits" if cut else ""
        print(f"{shown(name)}: {len(ids):,} found{more}")
        for one, distance in list(zip(ids, distances, strict=True))[:_SHOWN]:
            print(f"  {distance:>4}  {shown(one)}")
        if len(ids) > _SHOWN:
            print(f"        and {len(ids) - _SHOWN:,} more")


def found_of(index: Any, ids: Sequence[Sequence[str]], queries: Sequence[str]) -> Found:
    """Items of an index as the answers to others of it: their distances and payload."""
    return Found(
        [list(names) for names in ids],
        [
            scan.distances(scan.to_rows(code[None])[0], scan.to_rows(index.codes(names)))
            for code, names in zip(index.codes(queries), ids, strict=True)
        ],
        [index.payload(names) for names in ids],
        np.zeros(len(queries), np.int64),
    )


def write_page(
    path: Path,
    names: Sequence[str],
    found: Found,
    folder: Path,
    asked: Path,
    limits: Limits = _USUAL,
) -> None:
    """One file of HTML with all pictures in it.

    folder: what relative ids of answers are relative to; asked: the same of the questions' names.
    """
    parts = []
    for number, name in enumerate(names):
        answers = zip(found.ids[number], found.distances[number], strict=True)
        items = "".join(
            f"<li>{_figure(one, f'{distance} bits', folder, limits)}</li>"
            for one, distance in answers
        )
        title = f"<h2>{_text(name)}</h2>{_figure(name, 'asked for', asked, limits)}"
        parts.append(f"<section>{title}<ul>{items}</ul></section>")
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>tfhash: nearest images</title><style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(page))
    except OSError as error:
        raise unwritable("`html`", path, error) from None


def thumbnail(path: Path, side: int = THUMBNAIL, limits: Limits = _USUAL) -> bytes:
    """A JPEG of an image file, at most `side` px a side, turned as its camera was held.

    files.FileError for a file that is no image, is too large, or cannot be decoded.
    """
    from PIL import Image, ImageOps

    content = files.read(path, limits.max_bytes)
    try:
        with Image.open(io.BytesIO(content.data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > limits.max_pixels:
                size = f"{image.width} x {image.height} pixels"
                raise files.FileError(f"{size}; allowed: {limits.max_pixels // 10**6} million")
            image.draft("RGB", (side, side))
            turned = ImageOps.exif_transpose(_roughly(image, side)).convert("RGBA")
            turned.thumbnail((side, side))
            flat = Image.new("RGB", turned.size, "white")
            flat.paste(turned, mask=turned.getchannel("A"))
            target = io.BytesIO()
            flat.save(target, "JPEG", quality=80)
            return target.getvalue()
    except files.FileError:
        raise
    except Exception as error:  # Pillow raises what its plugins do
        raise files.FileError(f"cannot be decoded ({type(error).__name__})") from None


def _roughly(image: Any, side: int) -> Any:
    """The image at a size of little memory: a copy of a large one would be large."""
    from PIL import Image

    if image.mode not in ("1", "P", "PA", "I;16"):
        image.thumbnail((side, side))
        return image
    # Pillow mixes no palettes and no 16 bits: every so many pixels, and more than are needed.
    image.thumbnail((4 * side, 4 * side), Image.Resampling.NEAREST)
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _figure(name: str, words: str, folder: Path, limits: Limits) -> str:
    try:
        data = base64.b64encode(thumbnail(folder / name, limits=limits)).decode()
        picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    except OSError as error:
        picture = f'<div class="none">{_text(str(error.strerror or error))}</div>'
    caption = f"{_text(words)}<br>{_text(name)}"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _text(text: str) -> str:
    return html.escape(shown(text))
