"""Tables and figures of many runs, from their metrics.json: `python -m tfhash.report DIR ...`."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfhash.cli import mains
from tfhash.cli.flags import define_path
from tfhash.errors import UserError
from tfhash.names import encoded, shown
from tfhash.report import page, paired, records, rows

NAME = "tfhash.report"
# A link of Markdown to a file beside: no scheme, anchor or path from the root.
_LINK = re.compile(r"(?<=\]\()(?![a-zA-Z][a-zA-Z0-9+.-]*:|[#/])[^)\s#]+")


def main(argv: list[str]) -> int:
    _write_report(argv[1:])
    return 0


def _write_report(directories: Sequence[str]) -> None:
    given = flags.FLAGS
    if not directories:
        raise UserError("no folder given; usage: python -m tfhash.report DIR [DIR ...]")
    found = rows.read_runs(directories)
    runs = rows.without_repeats(found)
    if repeats := len(found) - len(runs):
        print(f"{repeats} of {len(found)} runs repeat seed, split and flags of another: left out")
    sections = rows.sections(runs)
    try:
        notes = Path(given.notes).read_text(encoding="utf-8") if given.notes else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--notes={given.notes}: {error}") from error
    notes = _with_links_from(Path(given.output).parent, notes, Path(given.notes or "").parent)
    command = shlex.join(["python", "-m", NAME, *sys.argv[1:]])
    flat = records.records(sections)
    if given.against:
        paired.check_title(sections, given.against)
    _write("output", given.output, page.render(sections, command, notes, given.against))
    if given.csv:
        _write("csv", given.csv, records.to_csv(flat))
    if given.json:
        _write("json", given.json, records.to_json(flat))
    if given.figures_dir:
        from tfhash.report import figures  # matplotlib takes a second, and tables need none

        try:
            Path(given.figures_dir).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=given.figures_dir).close()
        except OSError as error:
            raise UserError(f"--figures_dir={given.figures_dir}: {error}") from error
        paths = figures.draw(sections, Path(given.figures_dir), given.figure_bits)
        print("\n".join(f"wrote {shown(path)}" for path in paths) or "no figure: nothing to draw")


def _with_links_from(folder: Path, notes: str, own_folder: Path) -> str:
    """Notes that stood in own_folder, with links that lead to the same files from the other."""

    def moved(link: re.Match[str]) -> str:
        return Path(os.path.relpath(own_folder / link[0], folder)).as_posix()

    return _LINK.sub(moved, notes)


def _write(flag: str, path: str, text: str) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(encoded(text))
    except OSError as error:
        raise UserError(f"--{flag}={path}: {error}") from error
    print(f"wrote {shown(path)}")


def define_flags() -> None:
    define_path("output", "results.md", "Markdown file to write")
    define_path("notes", None, "Markdown file whose text, and links, go below the header")
    flags.DEFINE_string(
        "against",
        None,
        "method and variant of a row, e.g. 'ssgah' or 'ssgah baseline': others are told their mean "
        "difference from it on the same splits, with a 95 % interval",
    )
    define_path("csv", None, "CSV file to write: one record a method and code length")
    define_path("json", None, "JSON file to write: the same records")
    define_path("figures_dir", None, "folder for figures, PNG files")
    flags.DEFINE_integer(
        "figure_bits",
        None,
        "code length of curves; by default 48, or the longest of a protocol that has none of 48",
    )


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main, positional=True)


if __name__ == "__main__":
    entry_point()
