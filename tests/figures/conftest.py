"""What was drawn, in the place of files."""

from __future__ import annotations

import pytest

from tfhash.figures import curves, images, synthetic


@pytest.fixture
def drawn(monkeypatch):
    """The Figure objects that were drawn, instead of files."""
    kept = []
    for module in (curves, images, synthetic):
        monkeypatch.setattr(module, "save", lambda figure, path, **options: kept.append(figure))
    return kept
