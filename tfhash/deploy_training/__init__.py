"""Deploy training: the files that train one model with several workers, here or on a cluster."""

from tfhash.deploy_training.files import NAMES, Settings, render, write

__all__ = ["NAMES", "Settings", "render", "write"]
