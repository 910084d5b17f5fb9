"""Encodes image files with a served model, in a way that can be interrupted and go on."""
