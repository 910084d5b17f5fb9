"""Queries an exported encoder as another program would: with TensorFlow, without tfhash.

python examples/query_saved_model.py RUN_FOLDER     (a run on the digits)
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

run_folder = Path(sys.argv[1])
version = max((run_folder / "export").glob("[0-9]*"), key=lambda path: int(path.name))
encode = tf.saved_model.load(str(version)).signatures["encode_images"]
database = np.load(run_folder / "codes" / "database.npz")
queries = np.load(run_folder / "codes" / "query.npz")

# The first query image: an 8 x 8 scan; the SavedModel resizes it as training did.
name = str(queries["ids"][0])
grey = np.rint(load_digits().images[int(name.removeprefix("digits/"))] * 255 / 16)
image = np.repeat(grey[None, ..., None], 3, axis=-1).astype(np.uint8)
code = encode(images=tf.constant(image))["code"].numpy()[0]
assert (code == queries["codes"][0]).all(), "the SavedModel's code is not the one of the run"

distances = np.bitwise_count(database["codes"] ^ code).sum(axis=1)
nearest = np.argsort(distances, kind="stable")[:5]
print(f"SavedModel {version}")
print(f"query      {name}, a {queries['labels'][0].argmax()}, code {code.tobytes().hex()}")
for rank, index in enumerate(nearest, start=1):
    label = database["labels"][index].argmax()
    print(f"  {rank}. {database['ids'][index]}, a {label}, at Hamming distance {distances[index]}")
