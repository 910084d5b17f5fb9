"""The encoder in a folder of `tfhash.export`, for files of images; no other part of tfhash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfhash import files
from tfhash.errors import UserError
from tfhash.exports import describe, newest
from tfhash.names import shown
from tfhash.paths import literal

SIGNATURE = "encode_bytes_partial"


class Limits(NamedTuple):
    """What the file of an image may have: bytes and pixels."""

    max_bytes: int = files.MAX_BYTES
    max_pixels: int = files.MEGAPIXELS * 10**6


def limits_of(description: dict[str, Any]) -> Limits:
    """Those in the tfhash.json of an export; the usual ones of an older one without them."""
    told = description.get("limits")
    told = told if isinstance(told, dict) else {}
    own = {name: told[name] for name in Limits._fields if isinstance(told.get(name), int)}
    return Limits(**own)


class Encoder:
    """Codes of the bytes of JPEG and PNG files.

    directory: a version that was published, or a folder of versions, of which the newest is taken.
    A SavedModel is a program: load those that you trust. UserError where there is none, or it is of
    before exports had fingerprints.
    """

    def __init__(self, directory: Path | str):
        self.directory = newest(Path(directory).expanduser())
        description = describe(self.directory)
        self.code_length: int = description["code_length"]
        self.fingerprint: str = description["fingerprint"]
        self.limits = limits_of(description)
        import tensorflow as tf  # here, for who searches codes alone needs none

        try:
            with literal(self.directory) as folder:
                loaded = tf.saved_model.load(str(folder))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            where = shown(self.directory)
            raise UserError(f"`model`: {where} cannot be loaded ({reason})") from None
        self._constant = tf.constant
        self._loaded = loaded  # its variables live as long as it does
        self._encode = loaded.signatures[SIGNATURE]

    def __call__(self, contents: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Packed codes uint8 [n, w], and whether each file could be decoded, bool [n]."""
        answer = self._encode(image_bytes=self._constant(np.array(list(contents), object)))
        return answer["code"].numpy(), answer["valid"].numpy()
