"""Prepares NUS-WIDE from a user's own download, once: then --dataset=nus_wide --data_dir=DIR.

python -m tfhash.prepare_nus_wide --source=FOLDER --data_dir=DIR [--config=owners|lists]
    [--bow=BoW_int.dat]
"""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds
from absl import flags

from tfhash.cli import mains
from tfhash.cli.flags import define_path
from tfhash.data import prepared
from tfhash.data.nus_wide import listed, words
from tfhash.data.nus_wide.builder import NusWide
from tfhash.errors import UserError, unwritable
from tfhash.names import shown

NAME = "tfhash.prepare_nus_wide"
_NAMED = 10  # images that are named of those that are lost


def define_flags() -> None:
    define_path(
        "source", None, "folder of the owners' files, or of lists, and images", required=True
    )
    define_path("data_dir", None, "where the data set of TFDS goes", required=True)
    flags.DEFINE_enum(
        "config",
        "owners",
        [config.name for config in NusWide.BUILDER_CONFIGS],
        "owners: ImageList and Groundtruth, to be split by a protocol; lists: train.txt and "
        "test.txt, for --protocol=lists",
    )
    define_path(
        "bow", None, "the owners' BoW_int.dat, whose lines are kept for --features=bow; or later"
    )


def main(argv: list[str]) -> None:
    given = flags.FLAGS
    source = Path(given.source).expanduser()
    if not source.is_dir() or not any(source.iterdir()):  # TFDS would say it in four lines
        raise UserError(
            f"--source: {shown(source)} is no folder, or empty; allowed: one with NUS-WIDE's files"
        )
    bow = None if given.bow is None else Path(given.bow)
    if bow is not None and not bow.is_file():  # told before images are read for minutes
        raise UserError(f"--bow={shown(bow)}: no such file; allowed: the owners' BoW_int.dat")
    prepare(source, Path(given.data_dir).expanduser(), given.config, bow)


def prepare(source: Path, data_dir: Path, config: str, bow: Path | None = None) -> None:
    """Writes the data set, and prints what it holds, what is lost and what cannot be read.

    bow: the owners' bags of words, to be kept for the images of the data set, also of one that is
    there. UserError for files that are none of NUS-WIDE's, where no image is found, and where
    data_dir cannot be written.
    """
    try:
        builder = NusWide(config=config, data_dir=data_dir)
        if builder.is_prepared():
            print(f"there already: {builder.data_path}")
        else:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=source)
            )
        if bow is not None:
            words.keep(
                bow, listed.image_list(source), prepared.ids_of(builder), words.place(builder)
            )
    except OSError as error:
        raise unwritable("--data_dir", data_dir, error) from None
    metadata = builder.info.metadata
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    total = sum(counts.values())
    print(f"concepts:   {', '.join(metadata['concepts'])}")
    print(f"listed:     {metadata['listed']:,} images")
    print(f"images:     {', '.join(f'{name} {n:,}' for name, n in counts.items())}")
    if config == "owners":
        print(f"            {total:,} is {listed.variant(total)}")
    for what, names in (("lost", metadata["lost"]), ("unreadable", [*metadata["unreadable"]])):
        some = ", ".join(shown(name) for name in names[:_NAMED])
        more = ", ..." if len(names) > _NAMED else ""
        print(f"{what + ':':11} {len(names):,}{' (' + some + more + ')' if names else ''}")
    if words.place(builder).is_file():
        print(f"words:      bags of words of the owners ({shown(words.place(builder))})")
    print(f"to use it:  --dataset=nus_wide --data_dir={shown(data_dir)}")


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
