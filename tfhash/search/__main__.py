"""Finds images by their codes: an index of them, questions to it, duplicates, a page.

python -m tfhash.search build --index=DIR --images='photos/**' --model=runs/mine/export
python -m tfhash.search query --index=DIR --images=photo.jpg --k=10
python -m tfhash.search add|remove|info|duplicates|page --index=DIR ...

build makes the index, or brings it up to the files that there are; of codes that are there already:
--codes=FILE.npz of tfhash.serving.encode, or --model_dir=DIR of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfhash.cli import quiet

quiet.start()

from absl import flags  # noqa: E402

from tfhash.cli import mains  # noqa: E402
from tfhash.cli.flags import define_path  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.names import shown  # noqa: E402
from tfhash.search import approximate, backends, build, postgres, sources  # noqa: E402
from tfhash.search.answers import print_found, write_page  # noqa: E402
from tfhash.search.encoder import Encoder  # noqa: E402
from tfhash.search.groups import calibrated_radius, groups, write_csv  # noqa: E402
from tfhash.search.index import Index  # noqa: E402
from tfhash.search.values import readings  # noqa: E402

NAME = "tfhash.search"


def define_flags() -> None:
    define_path(
        "index",
        None,
        "folder of the index, or postgresql://... of a database with pgvector",
        required=True,
    )
    flags.DEFINE_string("images", None, "file, or quoted pattern such as 'photos/**/*.jpg'")
    define_path("model", None, "folder of the export that makes the codes; kept by the index")
    define_path("codes", None, "build: .npz of tfhash.serving.encode, in place of images")
    define_path("model_dir", None, "build: folder of a finished run, in place of images")
    flags.DEFINE_list("ids", [], "query, remove: names of items in the index")
    flags.DEFINE_integer("k", None, "query: how many of the nearest; 10 by default", 1)
    flags.DEFINE_integer("radius", None, "query, duplicates: all within so many bits", 0)
    flags.DEFINE_list("where", [], "query: NAME=VALUE, only items with this in their payload")
    flags.DEFINE_enum("backend", None, backends.NAMES, "what searches; build: exact by default")
    flags.DEFINE_float("recall", approximate.RECALL, "of a backend that misses some, the least")
    flags.DEFINE_integer("sure_radius", None, "multihash: all within so many bits are found", 0)
    define_path("html", None, "query, duplicates: page with pictures to write")
    define_path("output", None, "duplicates: .csv to write")
    flags.DEFINE_integer("port", 8600, "page: where it is served", 1, 65535)
    flags.DEFINE_string("host", "127.0.0.1", "page: who may ask; 0.0.0.0: other machines too")


def main(argv: list[str]) -> int:
    names = ", ".join(_COMMANDS)
    if len(argv) != 2 or argv[1] not in _COMMANDS:
        given = f"{argv[1]!r}" if len(argv) == 2 else f"{len(argv) - 1} words"
        raise UserError(f"command: {given}; allowed: one of {names}")
    try:
        return _COMMANDS[argv[1]]()
    except KeyboardInterrupt:
        mains.print_error(NAME, "interrupted; what was done is kept, the same command goes on")
        return 130


def _build() -> int:
    given = flags.FLAGS
    sources_given = [name for name in ("images", "codes", "model_dir") if given[name].value]
    if len(sources_given) != 1:
        raise UserError("--images, --codes, --model_dir: allowed: exactly one of them")
    if given.images:
        return _update(drop=True)
    found = sources.of_encode(given.codes) if given.codes else sources.of_run(given.model_dir)
    with _open_or_make(found.code_length, found.fingerprint) as index:
        build.check_model(index, found.code_length, found.fingerprint)
        gone = sorted(set(index.ids()) - set(found.ids))
        index.change(found.codes, ids=found.ids, payload=found.payload, remove=gone, replace=True)
        _tell(index)
        print(f"{len(found.ids):,} codes, {len(gone):,} removed")
        index.compact()
        _describe(index)
    return 0


def _add() -> int:
    if not flags.FLAGS.images:
        raise UserError("--images: none; add takes files of images")
    return _update(drop=False)


def _update(drop: bool) -> int:
    given = flags.FLAGS
    encoder = _encoder()
    with _open_or_make(encoder.code_length, encoder.fingerprint) as index:
        _tell(index)
        index.remember(export=str(encoder.directory.resolve()), folder=str(Path.cwd()))
        with _bar() as bar:
            changes = build.update(
                index, encoder, given.images, drop=drop, progress=bar.update, total=bar.reset
            )
        for note in changes.notes:
            print(f"--images: {shown(note)}")
        print(changes)
        for path, reason in sorted(changes.unreadable.items()):
            mains.print_error(NAME, f"{shown(path)}: {reason}")
        index.compact()
        _describe(index)
    return 1 if changes.unreadable else 0


def _remove() -> int:
    given = flags.FLAGS
    with _load() as index:
        names = list(given.ids)
        if given.images:
            paths, _, _ = build.find(given.images)
            names += [path for path in paths if path in index]
        if not names:
            raise UserError("--ids, --images: nothing to remove")
        index.remove(names)
        index.compact()
        print(f"{len(names):,} removed")
        _describe(index)
    return 0


def _query() -> int:
    given = flags.FLAGS
    if bool(given.images) == bool(given.ids):
        raise UserError("--images, --ids: allowed: one of them, what to search for")
    with _load() as index:
        bad: dict[str, str] = {}
        if given.ids:
            names, codes = list(given.ids), index.codes(given.ids)
        else:
            encoder = _encoder(index)
            build.check_model(index, encoder.code_length, encoder.fingerprint)
            names, codes, bad = build.encode_files(encoder, given.images)
        found = index.search(codes, k=given.k, radius=given.radius, where=_where(given.where))
        _tell(index)
        print_found(names, found)
        if given.html:
            write_page(Path(given.html), names, found, index.folder)
            print(f"page:       {shown(given.html)}")
    for path, reason in bad.items():
        mains.print_error(NAME, f"{shown(path)}: {reason}")
    return 1 if bad else 0


def _info() -> int:
    with _load() as index:
        _tell(index)
        _describe(index)
        for name, value in index.facts().items():
            print(f"{name + ':':<12} {shown(value)}")
    return 0


def _duplicates() -> int:
    given = flags.FLAGS
    with _load() as index:
        radius = given.radius
        if radius is None:
            radius, why = calibrated_radius(index)
            print(f"radius:     {radius} bits, {why}")
        found = groups(index, radius)
        print(f"groups:     {len(found):,} of {sum(map(len, found)):,} items within {radius} bits")
        if given.output:
            write_csv(Path(given.output), found)
            print(f"table:      {shown(given.output)}")
        if given.html:
            write_page(Path(given.html), *_as_answers(index, found), index.folder)
            print(f"page:       {shown(given.html)}")
        for group in found[:20] if not (given.output or given.html) else ():
            more = f"  and {len(group) - 4:,} more" if len(group) > 4 else ""
            print("  " + "  ".join(map(shown, group[:4])) + more)
    return 0


def _page() -> int:
    given = flags.FLAGS
    mains.require(NAME, "page", "starlette", "uvicorn")
    if _in_database():
        raise UserError("--index: a database; page needs an index in a folder")
    import uvicorn

    from tfhash.search.page.app import make_app

    with _load() as index:
        encoder = _encoder(index) if given.model or index.facts().get("export") else None
        if encoder is not None:
            build.check_model(index, encoder.code_length, encoder.fingerprint)
        hosts = ["127.0.0.1", "localhost", "[::1]", given.host]
        app = make_app(index, encoder, ["*"] if given.host in ("0.0.0.0", "::") else hosts)
        _tell(index)
        _describe(index)
        print(f"page:       http://{given.host}:{given.port}/ (Ctrl-C ends it)", flush=True)
        uvicorn.run(app, host=given.host, port=given.port, log_level="warning")
    return 0


_COMMANDS: dict[str, Callable[[], int]] = {
    "build": _build,
    "query": _query,
    "add": _add,
    "remove": _remove,
    "info": _info,
    "duplicates": _duplicates,
    "page": _page,
}


def _in_database() -> bool:
    return flags.FLAGS.index.startswith(postgres.PREFIXES)


def _is_there() -> bool:
    """Whether there is an index to open."""
    if _in_database():
        return postgres.is_there(flags.FLAGS.index)
    return (Path(flags.FLAGS.index) / "items.sqlite").exists()


def _load() -> Any:
    given = flags.FLAGS
    if _in_database():
        return postgres.PostgresIndex(given.index)
    return Index.load(
        given.index, backend=given.backend, recall=given.recall, sure_radius=given.sure_radius
    )


def _open_or_make(code_length: int, fingerprint: str) -> Any:
    given = flags.FLAGS
    if _is_there():
        return _load()
    if _in_database():
        return postgres.PostgresIndex(given.index, code_length=code_length, model=fingerprint)
    return Index(
        code_length=code_length,
        path=given.index,
        model=fingerprint,
        backend=given.backend or "exact",
        recall=given.recall,
        sure_radius=given.sure_radius,
    )


def _encoder(index: Index | None = None) -> Encoder:
    """That of --model, else the one that the index was made with."""
    folder = flags.FLAGS.model
    if folder is None and index is None and _is_there():
        with _load() as there:
            folder = there.facts().get("export")
    elif folder is None and index is not None:
        folder = index.facts().get("export")
    if not folder:
        raise UserError(
            "--model: none, and the index names none; allowed: a folder of tfhash.export"
        )
    return Encoder(folder)


def _where(pairs: list[str]) -> dict[str, Any] | None:
    """NAME=VALUE, as text; of a name that comes twice, one of its values."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"--where: {pair!r}; allowed: NAME=VALUE")
        found.setdefault(name, []).extend(readings(value))
    return found or None


def _tell(index: Index) -> None:
    for note in index.notes:
        print(shown(note))


def _describe(index: Any) -> None:
    where = index.place if _in_database() else shown(flags.FLAGS.index)
    print(f"index:      {where}, {len(index):,} codes of {index.code_length} bits")


def _bar() -> Any:
    from tqdm import tqdm

    return tqdm(unit="file", disable=None)  # None: only on a terminal


def _as_answers(index: Index, found: list[list[str]]) -> tuple[list[str], Any]:
    """Groups as answers: the first item of each asked for the others."""
    firsts = [group[0] for group in found]
    return firsts, index.found_of([group[1:] for group in found], firsts)


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main, positional=True)


if __name__ == "__main__":
    entry_point()
