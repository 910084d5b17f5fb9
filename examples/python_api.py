"""The Python face in ten lines: learn codes, judge them, keep them, export the encoder.

python examples/python_api.py [FOLDER]
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

import tfhash

digits = load_digits()
images = np.repeat(np.uint8(digits.images * 255 / 16)[..., None], 3, axis=-1)  # uint8 [n, 8, 8, 3]
labels = np.where(np.arange(len(images)) < 400, digits.target, -1)  # -1: nobody labelled it
folder = sys.argv[1] if len(sys.argv) > 1 else "runs/python_api"

hasher = tfhash.SDH(code_length=24, seed=0)  # or ITQ, SSGAH, DSHGAN, ...: keywords = flags
hasher.fit(images[:1500], labels[:1500])
codes = hasher.encode(images)  # uint8 [n, 3], packed bits
metrics = tfhash.evaluate(
    codes[1500:], codes[:1500], digits.target[1500:], digits.target[:1500], code_length=24
)
print(f"{hasher}: mAP {metrics.map[None]:.3f}")
hasher.save(folder)
assert (tfhash.load(folder).encode(images) == codes).all()
print("SavedModel:", tfhash.export_saved_model(hasher, f"{folder}/export", images=images[:64]))
