"""The server of the search page: one static page, and four answers to it in JSON and JPEG.

Images of the index are asked for by their numbers, never by a name: what is not in the index has no
number. Nothing is loaded from elsewhere, and a browser is told to load nothing.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tfhash import files
from tfhash.codes import unpack
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.search.answers import thumbnail
from tfhash.search.encoder import Encoder, Limits
from tfhash.search.index import Index
from tfhash.search.values import plain, readings

MOST = 200  # answers of one search
SIDE = 256  # px of a thumbnail
CACHED = 2_000  # thumbnails in memory, some 20 KB each
_DIGITS = 18  # of a number that is asked for; Python reads no number of thousands
DECODED = 2  # images that are decoded at a time: one may take 4 bytes for each of its pixels
_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(index: Index, encoder: Encoder | None, hosts: list[str]) -> Starlette:
    """The page over an index. encoder: None where photos cannot be encoded, only items clicked.

    hosts: the names under which it may be asked, so that no other site's name leads here.
    """
    page = _Page(index, encoder)
    routes = [
        Route("/", _static("index.html")),
        Route("/page.js", _static("page.js")),
        Route("/page.css", _static("page.css")),
        Route("/favicon.ico", _static("favicon.svg")),
        Route("/api/index", page.about),
        Route("/api/search", page.search, methods=["GET", "POST"]),
        Route("/thumbnail/{number}", page.thumbnail),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
            Middleware(_SameSite),
        ],
        exception_handlers={UserError: _mistake, files.FileError: _mistake},
    )


def _static(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return FileResponse(_STATIC / name, headers=_HEADERS | {"Cache-Control": "no-cache"})

    return answer


async def _mistake(request: Request, error: Exception) -> Response:
    words = str(error.strerror or error) if isinstance(error, OSError) else str(error)
    return _json({"error": shown(words.replace("`", ""))}, 400)


def _json(content: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(content, status, headers=_HEADERS | {"Cache-Control": "no-store"})


class _SameSite:
    """Refuses what the page of another site asks for: it would make the model work for it."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_foreign(scope["path"], Headers(scope=scope)):
            answer = _json({"error": "asked for by a page of another site"}, 403)
            await answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    @staticmethod
    def _is_foreign(path: str, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) != headers.get("host", ""):
            return True
        # A link from elsewhere to the page itself is welcome.
        own = path.startswith(("/api/", "/thumbnail/"))
        return own and headers.get("sec-fetch-site") in ("cross-site", "same-site")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as http://[
        return None


class _Page:
    def __init__(self, index: Index, encoder: Encoder | None):
        self.index, self.encoder = index, encoder
        self.limits = Limits() if encoder is None else encoder.limits
        self.decoding = threading.BoundedSemaphore(DECODED)
        self.thumbnail_of = functools.lru_cache(CACHED)(self._thumbnail_of)

    async def about(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self._about))

    def _about(self) -> dict[str, Any]:
        with self.index.reading():
            return {
                "count": len(self.index),
                "code_length": self.index.code_length,
                "model": self.index.model,
                "encodes": self.encoder is not None,
                "first": self.index.first_number(),
                "key": self.index.key,
            }

    async def search(self, request: Request) -> Response:
        """The nearest items of an uploaded file, the body, or of the item of ?number."""
        options = _options(request)
        if request.method == "POST":
            if self.encoder is None:
                raise UserError("this page has no model: only images of the index can be asked for")
            body = await _body(request, self.limits.max_bytes)
            return _json(await run_in_threadpool(self._search, _of_file, body, options))
        number = _number(request.query_params.get("number", ""))
        return _json(await run_in_threadpool(self._search, _of_number, number, options))

    def _search(self, code_of: Callable, asked: Any, options: dict[str, Any]) -> dict[str, Any]:
        code = code_of(self, asked)
        with self.index.reading():
            found = self.index.search(code, limit=MOST, **options)
            numbers, codes = self.index.numbers_and_codes(found.ids[0])
        asked_bits = unpack(code, self.index.code_length)
        bits = unpack(codes, self.index.code_length) != asked_bits
        parts = zip(numbers, found.ids[0], found.distances[0], found.payload[0], bits, strict=True)
        assert found.counts is not None
        return {
            "found": int(found.counts[0]),
            "ties_cut": int(found.ties_cut[0]),
            "code": asked_bits[0].tolist(),
            "items": [
                {
                    "number": int(number),
                    "id": shown(name),
                    "distance": int(distance),
                    "payload": plain(payload),
                    "differs": np.flatnonzero(of_item).tolist(),
                }
                for number, name, distance, payload, of_item in parts
            ],
        }

    async def thumbnail(self, request: Request) -> Response:
        number = _number(request.path_params["number"])
        data = await run_in_threadpool(self.thumbnail_of, number)
        cached = {"Cache-Control": "private, max-age=3600"}
        return Response(data, media_type="image/jpeg", headers=_HEADERS | cached)

    def _thumbnail_of(self, number: int) -> bytes:
        (name,) = self.index.names_of([number])
        with self.decoding:
            return thumbnail(self.index.folder / name, SIDE, self.limits)


def _of_file(page: _Page, body: bytes) -> np.ndarray:
    assert page.encoder is not None
    if not body.startswith(files.STARTS):
        raise UserError("not a JPEG or PNG image")
    codes, valid = page.encoder([body])
    if not valid[0]:
        raise UserError("the image is damaged, or has more pixels than the model allows")
    return codes


def _of_number(page: _Page, number: int) -> np.ndarray:
    return page.index.codes(page.index.names_of([number]))


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS:
        raise UserError(f"`number`: {text!r:.30}; allowed: that of an image")
    return int(text)


async def _body(request: Request, most: int) -> bytes:
    """The uploaded file; it is not read beyond the bytes that a file may have."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise UserError(f"the file is larger than {most / 2**20:.1f} MiB")
        parts.append(part)
    return b"".join(parts)


def _options(request: Request) -> dict[str, Any]:
    """k, radius and where of a search, from the query of its address."""
    given = request.query_params
    options: dict[str, Any] = {}
    for name in ("k", "radius"):
        text = given.get(name, "")
        if text:
            if not text.isdecimal() or len(text) > _DIGITS or int(text) > 1_000_000:
                raise UserError(f"`{name}`: {text!r:.30}; allowed: whole numbers")
            options[name] = int(text)
    if "radius" not in options:
        options["k"] = min(options.get("k", 24), MOST)
    else:
        options.pop("k", None)
    where: dict[str, list[Any]] = {}
    for pair in given.getlist("where"):
        name, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"`where`: {pair!r:.60}; allowed: NAME=VALUE")
        where.setdefault(name, []).extend(readings(value))
    if where:
        options["where"] = where
    return options
