"""Images whose codes are known by hand, from the rule of the fake server, and a dead target."""

from __future__ import annotations

import numpy as np

CONNECTION_REFUSED = "127.0.0.1:1"  # nothing listens on port 1


def images(values) -> np.ndarray:
    """[n, 2, 3, 3] with these first bytes; the fake's codes are (value, 0xF0)."""
    array = np.full([len(values), 2, 3, 3], 0xFF, np.uint8)
    array[:, 0, 0, 0] = values
    return array
