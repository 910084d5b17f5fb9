"""Encodes any number of images with Apache Beam: on this machine, or on a cluster of its runners.

Workers need the packages of the extra `bulk`, TensorFlow, and of tfhash this package with what
stands above it in BUILD.md; nothing that trains is imported.
"""
