"""Export: the encoder of a run as a SavedModel that loads without this library."""

from tfhash.export.saved_model import export_saved_model, save

__all__ = ["export_saved_model", "save"]
