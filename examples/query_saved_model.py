"""Queries an exported encoder as another program would: with TensorFlow, without tfhash.

python examples/query_saved_model.py RUN_FOLDER     (a run on the digits)
"""

import os
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

# TensorFlow tells of CUDA and oneDNN while it is imported, whatever its settings are.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr, silence = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(silence, 2)
import tensorflow as tf  # noqa: E402

os.dup2(stderr, 2)

NEAREST = 10

run_folder = Path(sys.argv[1])
version = max((run_folder / "export").glob("[0-9]*"), key=lambda path: int(path.name))
encode = tf.saved_model.load(str(version)).signatures["encode_images"]
database = np.load(run_folder / "codes" / "database.npz")
queries = np.load(run_folder / "codes" / "query.npz")
database_codes, database_digits = database["codes"], database["labels"].argmax(axis=1)
query_codes, query_digits = queries["codes"], queries["labels"].argmax(axis=1)

# The query images as they are on disk, 8 x 8 scans; the SavedModel resizes them as training did.
scans = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
rows = [int(name.removeprefix("digits/")) for name in queries["ids"]]
images = np.repeat(scans[rows][..., None], 3, axis=-1)
codes = encode(images=tf.constant(images))["code"].numpy()
assert (codes == query_codes).all(), "the SavedModel's codes are not those of the run"

distances = np.bitwise_count(codes[:, None] ^ database_codes).sum(axis=2)
nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]
hits = (database_digits[nearest] == query_digits[:, None]).sum(axis=1)

print(f"SavedModel {version}: {len(codes)} queries, {len(database_codes):,} images in the database")
print(f"of the {NEAREST} nearest images of a query, {hits.mean():.1f} show its digit (mean of all)")
print("the first query of each digit:")
print(f"  digit  query        code    right     what the {NEAREST} nearest show")
for digit in range(10):
    first = np.flatnonzero(query_digits == digit)[0]
    found = " ".join(map(str, database_digits[nearest[first]]))
    code = codes[first].tobytes().hex()
    name = queries["ids"][first]
    print(f"  {digit:<5}  {name}  {code}  {hits[first]:>2} of {NEAREST}  {found}")
print(f"picture of the same: {run_folder / 'figures' / 'top_results.png'}")
