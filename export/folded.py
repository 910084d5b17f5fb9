"""The encoder that is exported: without the batch normalisation that can be folded."""

from __future__ import annotations

import keras
import numpy as np

from tfhash.export.verify import VerificationError
from tfhash.networks import folding

_MOST = 0.01  # of the bits; rounding turns those alone whose activation is next to one half


def folded(encoder: keras.Model, images: np.ndarray | None) -> keras.Model:
    """The encoder with batch normalisation folded into the layers before it, if it has any.

    Prints how many were folded and, of images uint8 [n, S, S, 3], how many bits differ by it.
    VerificationError where more than one in a hundred does.
    """
    count = folding.count(encoder.backbone) if getattr(encoder, "backbone", None) else 0
    if not count:
        return encoder
    without = folding.folded_encoder(encoder)
    said = f"folded {count} batch normalisations into the layers before them"
    if images is not None:
        bits, others = (
            part.predict(images, batch_size=32, verbose=0) > 0.5 for part in (encoder, without)
        )
        said += f": {(bits != others).sum():,} of {bits.size:,} bits differ"
        if (bits != others).mean() > _MOST:
            raise VerificationError(f"{said}; allowed: --nofold, fold=False")
    print(said)
    return without
