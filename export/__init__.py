"""Export: the encoder of a run as a SavedModel that loads without this library."""

from tfhash.export.saved_model import save

__all__ = ["save"]
