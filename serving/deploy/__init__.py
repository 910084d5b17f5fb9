"""Deploy: the files that serve an export with the real TensorFlow Serving in Docker."""

from tfhash.serving.deploy.files import Settings, newest_version, render, write

__all__ = ["Settings", "newest_version", "render", "write"]
