"""Runs: one experiment from images to metrics, the folder that it leaves, and what reads that."""
