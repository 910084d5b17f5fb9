"""Finds images by their codes: an index of them, questions to it, duplicates, a page.

python -m tfhash.search build --index=DIR --images='photos/**' --model=runs/mine/export
python -m tfhash.search query --index=DIR --images=photo.jpg --k=10
python -m tfhash.search add|remove|info|duplicates|page --index=DIR ...

build makes the index, or brings it up to the files that there are; of codes that are there already:
--codes=FILE.npz of tfhash.serving.encode, --codes=NAME@16.parquet of tfhash.serving.bulk, or
--model_dir=DIR of a run.
"""

from __future__ import annotations

from tfhash.cli import quiet

quiet.start()

from absl import flags  # noqa: E402

from tfhash.cli import mains  # noqa: E402
from tfhash.cli.flags import define_path  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.search import backends  # noqa: E402
from tfhash.search.commands import COMMANDS, NAME, check_flags  # noqa: E402
from tfhash.search.encoder import Encoder  # noqa: E402
from tfhash.search.opening import Opening  # noqa: E402


def define_flags() -> None:
    define_path(
        "index",
        None,
        "folder of the index, postgresql://... of a database with pgvector, or milvus://...",
        required=True,
    )
    flags.DEFINE_string("images", None, "file, or quoted pattern such as 'photos/**/*.jpg'")
    define_path("model", None, "folder of the export that makes the codes; kept by the index")
    define_path(
        "codes", None, "build: .npz of encode or NAME@16.parquet of bulk, in place of images"
    )
    define_path("model_dir", None, "build: folder of a finished run, in place of images")
    flags.DEFINE_list("ids", [], "query, remove: names of items in the index")
    flags.DEFINE_integer("k", None, "query: how many of the nearest; 10 by default", 1)
    flags.DEFINE_integer("radius", None, "query, duplicates: all within so many bits", 0)
    flags.DEFINE_list("where", [], "query: NAME=VALUE, only items with this in their payload")
    flags.DEFINE_enum(
        "backend", None, backends.NAMES, "what searches; build keeps it: at first exact"
    )
    flags.DEFINE_float(
        "recall", None, "with --backend: the least that it finds of the nearest; .99 by default"
    )
    flags.DEFINE_integer("sure_radius", None, "multihash: all within so many bits are found", 0)
    define_path("html", None, "query, duplicates: page with pictures to write")
    define_path("output", None, "duplicates: .csv to write")
    flags.DEFINE_integer("port", 8600, "page: where it is served", 1, 65535)
    flags.DEFINE_string("host", "127.0.0.1", "page: who may ask; 0.0.0.0: other machines too")


def main(argv: list[str]) -> int:
    names = ", ".join(COMMANDS)
    if len(argv) != 2 or argv[1] not in COMMANDS:
        given = f"{argv[1]!r}" if len(argv) == 2 else f"{len(argv) - 1} words"
        raise UserError(f"command: {given}; allowed: one of {names}")
    check_flags(argv[1], flags.FLAGS)
    command, _ = COMMANDS[argv[1]]
    try:
        return command(flags.FLAGS, Opening(flags.FLAGS, Encoder))
    except KeyboardInterrupt:
        mains.print_error(NAME, "interrupted; what was done is kept, the same command goes on")
        return 130


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main, positional=True)


if __name__ == "__main__":
    entry_point()
