"""provenance: what stands beside a number."""

import importlib.metadata

import tfhash
from tfhash.runs import provenance


def test_a_checkout_that_is_not_installed_has_its_version(monkeypatch):
    """A GPU machine without an index runs the sources as they are; the end of a run died there."""
    installed = importlib.metadata.version

    def version(package):
        if package == "tfhash":
            raise importlib.metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert provenance.versions()["tfhash"] == tfhash.__version__
    assert provenance.versions()["numpy"] == installed("numpy")
