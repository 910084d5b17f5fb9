"""What the commands of tfhash.search do, but for their flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfhash.cli import mains
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.search import build, sources
from tfhash.search.answers import found_of, print_found, write_page
from tfhash.search.found import no_twice
from tfhash.search.groups import calibrated_radius, groups, write_csv
from tfhash.search.opening import Opening, check_place, keep_place
from tfhash.search.values import readings

NAME = "tfhash.search"
_SHOWN = 20  # groups on a terminal


def build_(given: Any, opening: Opening) -> int:
    named = [name for name in ("images", "codes", "model_dir") if given[name].value]
    if len(named) != 1:
        raise UserError("--images, --codes, --model_dir: allowed: exactly one of them")
    if given.images:
        return _update(given, opening, drop=True)
    if given.model is not None:
        raise UserError(f"--model: not with --{named[0]}, whose codes are there already")
    found = sources.of_files(given.codes) if given.codes else sources.of_run(given.model_dir)
    no_twice(found.ids)
    with opening.to_change(found.code_length, found.fingerprint) as index:
        gone = sorted(set(index.ids()) - set(found.ids))
        index.change(found.codes, ids=found.ids, payload=found.payload, remove=gone, replace=True)
        build.tie(index, found.fingerprint)  # once no code of another one is there
        _tell(index)
        print(f"{len(found.ids):,} codes, {len(gone):,} removed")
        _finish(index, opening, has_changed=True)
    return 0


def add(given: Any, opening: Opening) -> int:
    if not given.images:
        raise UserError("--images: none; add takes files of images")
    return _update(given, opening, drop=False)


def _update(given: Any, opening: Opening, drop: bool) -> int:
    # All that may be refused comes before the index is made or changed.
    found = build.find(given.images)
    encoder = opening.encoder()
    with opening.to_change(encoder.code_length, encoder.fingerprint) as index:
        build.check_origin(index, encoder.fingerprint, drop=drop)
        keep_place(index, given.images, encoder)
        _tell(index)
        with _bar("file") as bar:
            changes = build.update(
                index,
                encoder,
                found,
                drop=drop,
                text_only=opening.in_database,
                progress=bar.update,
                total=bar.reset,
            )
        for note in changes.notes:
            print(f"--images: {shown(note)}")
        print(changes)
        for path, reason in sorted(changes.unreadable.items()):
            mains.print_error(NAME, f"{shown(path)}: {reason}")
        has_changed = bool(changes.encoded or changes.moved or changes.removed)
        _finish(index, opening, has_changed or given.backend is not None)
    return 1 if changes.unreadable else 0


def remove(given: Any, opening: Opening) -> int:
    with opening.load() as index:
        names = list(given.ids)
        if given.images:
            check_place(index, given.images)
            names += [path for path in build.find(given.images).paths if path in index]
        if not names:
            raise UserError("--ids, --images: nothing to remove")
        names = [*dict.fromkeys(names)]
        index.remove(names)
        index.compact()
        print(f"{len(names):,} removed")
        _describe(index, opening)
    return 0


def query(given: Any, opening: Opening) -> int:
    if bool(given.images) == bool(given.ids):
        raise UserError("--images, --ids: allowed: one of them, what to search for")
    if given.ids and given.model is not None:
        raise UserError("--model: not with --ids, whose codes are there already")
    with opening.load() as index:
        bad: dict[str, str] = {}
        if given.ids:
            names, codes = list(given.ids), index.codes(given.ids)
        else:
            encoder = opening.encoder(index)
            build.check_model(index, encoder.code_length, encoder.fingerprint)
            names, codes, bad = build.encode_files(encoder, given.images)
        found = index.search(codes, k=given.k, radius=given.radius, where=where_of(given.where))
        _tell(index)
        print_found(names, found)
        if given.html:
            asked = index.folder if given.ids else Path()
            limits = opening.limits(index)
            write_page(Path(given.html), names, found, index.folder, asked, limits)
            print(f"page:       {shown(given.html)}")
    for path, reason in bad.items():
        mains.print_error(NAME, f"{shown(path)}: {reason}")
    return 1 if bad else 0


def info(given: Any, opening: Opening) -> int:
    with opening.load() as index:
        _tell(index)
        _describe(index, opening)
        for name, value in index.facts().items():
            print(f"{name + ':':<12} {shown(value)}")
    return 0


def duplicates(given: Any, opening: Opening) -> int:
    with opening.load() as index:
        radius = given.radius
        if radius is None:
            radius, why = calibrated_radius(index)
            print(f"radius:     {radius} bits, {why}")
        with _bar("code") as bar:
            found = groups(index, radius, progress=bar.update, total=bar.reset)
        print(f"groups:     {len(found):,} of {sum(map(len, found)):,} items within {radius} bits")
        if given.output:
            write_csv(Path(given.output), found)
            print(f"table:      {shown(given.output)}")
        if given.html:
            # The first item of each group as a question, whose answers are the others.
            firsts = [group[0] for group in found]
            others = found_of(index, [group[1:] for group in found], firsts)
            folder, limits = index.folder, opening.limits(index)
            write_page(Path(given.html), firsts, others, folder, folder, limits)
            print(f"page:       {shown(given.html)}")
        if not (given.output or given.html):
            _print_groups(found)
    return 0


def _print_groups(found: Sequence[Sequence[str]]) -> None:
    for group in found[:_SHOWN]:
        more = f"  and {len(group) - 4:,} more" if len(group) > 4 else ""
        print("  " + "  ".join(map(shown, group[:4])) + more)
    if len(found) > _SHOWN:
        print(f"  and {len(found) - _SHOWN:,} more groups; --output has them all")


def page(given: Any, opening: Opening) -> int:
    mains.require(NAME, "page", "starlette", "uvicorn")
    if opening.in_database:
        raise UserError("--index: a database; page needs an index in a folder")
    import uvicorn

    from tfhash.search.page.app import make_app

    with opening.load() as index:
        has_model = given.model or index.facts().get("export")
        encoder = opening.encoder(index) if has_model else None
        if encoder is not None:
            build.check_model(index, encoder.code_length, encoder.fingerprint)
        named = f"[{given.host}]" if ":" in given.host else given.host  # as addresses have IPv6
        hosts = ["127.0.0.1", "localhost", "[::1]", named]
        app = make_app(index, encoder, ["*"] if given.host in ("0.0.0.0", "::") else hosts)
        _tell(index)
        _describe(index, opening)
        print(f"page:       http://{named}:{given.port}/ (Ctrl-C ends it)", flush=True)
        uvicorn.run(app, host=given.host, port=given.port, log_level="warning")
    return 0


# The function of each command, and the flags that mean something to it beside --index.
COMMANDS: dict[str, tuple[Callable[[Any, Opening], int], str]] = {
    "build": (build_, "images model codes model_dir backend recall sure_radius"),
    "query": (query, "images ids model k radius where html backend recall sure_radius"),
    "add": (add, "images model"),
    "remove": (remove, "images ids"),
    "info": (info, ""),
    "duplicates": (duplicates, "radius output html"),
    "page": (page, "model host port backend recall sure_radius"),
}
OWN_FLAGS = sorted({flag for _, allowed in COMMANDS.values() for flag in allowed.split()})


def check_flags(command: str, given: Any) -> None:
    """UserError for a flag that the command would not look at."""
    allowed = COMMANDS[command][1].split()
    for name in OWN_FLAGS:
        if given[name].present and name not in allowed:
            flags = ", ".join(f"--{flag}" for flag in ("index", *allowed))
            raise UserError(f"--{name}: not of {command}; allowed: {flags}")


def where_of(pairs: Sequence[str]) -> dict[str, Any] | None:
    """NAME=VALUE, as text; of a name that comes twice, one of its values."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"--where: {pair!r}; allowed: NAME=VALUE")
        found.setdefault(name, []).extend(readings(value))
    return found or None


def _finish(index: Any, opening: Opening, has_changed: bool) -> None:
    """What makes the next search quick, once all is in."""
    index.compact()
    if has_changed and (told := index.optimise()):
        print(shown(told))
    _describe(index, opening)


def _tell(index: Any) -> None:
    for note in index.notes:
        print(shown(note))


def _describe(index: Any, opening: Opening) -> None:
    where = index.place if opening.in_database else shown(opening.given.index)
    print(f"index:      {where}, {len(index):,} codes of {index.code_length} bits")


def _bar(unit: str) -> Any:
    from tqdm import tqdm

    return tqdm(unit=unit, disable=None)  # None: only on a terminal
