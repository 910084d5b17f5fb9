"""NUS-WIDE (Chua et al., CIVR 2009) as a data set of TFDS."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfhash import files
from tfhash.data import images
from tfhash.data.nus_wide import listed

_BLOCK = 512  # images that are read at a time
_DESCRIPTION = """
Images of Flickr with the 81 concepts of the National University of Singapore. Here: those with at
least one of the 21 most frequent concepts, as papers about hashing have it. The owners give labels
and lists; the images are a user's own download.
"""
_CITATION = """
@inproceedings{chua2009nus,
  title={NUS-WIDE: a real-world web image database from National University of Singapore},
  author={Chua, Tat-Seng and Tang, Jinhui and Hong, Richang and Li, Haojie and Luo, Zhiping and
          Zheng, Yantao},
  booktitle={CIVR},
  year={2009}
}
"""


class NusWide(tfds.core.GeneratorBasedBuilder):
    """Images with the names of their concepts; lost and unreadable ones stand in the metadata."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(
            name="owners", description="Labels and lists as the owners give them."
        ),
        tfds.core.BuilderConfig(
            name="lists", description="The split of train.txt, test.txt, database.txt."
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Of the owners (https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/):
    ImageList/ and Groundtruth/AllLabels/; or train.txt and test.txt of a paper. The images in any
    folder below, under the names that the lists have. Then
    python -m tfhash.prepare_nus_wide --source=FOLDER --data_dir=DIR
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            citation=_CITATION,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "concepts": tfds.features.Sequence(tfds.features.Text()),
                }
            ),
            metadata=tfds.core.MetadataDict(concepts=[], listed=0, lost=[], unreadable={}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        root = Path(dl_manager.manual_dir)
        if self.builder_config.name == "owners":
            parts = {"images": listed.owners(root)}  # `all` is a word of TFDS
        else:
            parts = listed.lists(root)
        found = listed.Files(root)
        metadata = self.info.metadata
        metadata["concepts"] = list(next(iter(parts.values())).concepts)
        metadata["listed"] = sum(part.total for part in parts.values())
        metadata["lost"] = [
            path for part in parts.values() for path in listed.lost(part.paths, found)
        ]
        return {name: self._generate_examples(part, found) for name, part in parts.items()}

    def _generate_examples(
        self, part: listed.Listed, found: listed.Files
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(part.paths), _BLOCK):
                paths = part.paths[start : start + _BLOCK]
                read = threads.map(_read, (found.find(path) for path in paths))
                for path, row, (content, reason) in zip(
                    paths, part.labels[start : start + _BLOCK], read, strict=True
                ):
                    if reason:
                        self.info.metadata["unreadable"][path] = reason
                    if content is not None:
                        names = [part.concepts[place] for place in np.flatnonzero(row)]
                        # As it is: pixels would be stored as PNG, five times as large.
                        yield (
                            path,
                            {
                                "id": path,
                                "image": io.BytesIO(content),
                                "concepts": names,
                            },
                        )


# As a graph: operation by operation an image takes a tenth of a second.
_decode = tf.function(images.decode, input_signature=[tf.TensorSpec([], tf.string)])


def _read(path: Path | None) -> tuple[bytes | None, str]:
    """The bytes of an image, or the reason why it is no image; neither of one that is lost."""
    if path is None:
        return None, ""
    try:
        content = files.read(path, images.Limits(images.MEGAPIXELS).bytes).data
        _decode(tf.constant(content))
        return content, ""
    except (files.FileError, tf.errors.InvalidArgumentError) as error:
        return None, str(error).splitlines()[0]
