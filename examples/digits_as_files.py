"""The digits of the quickstart as files, for an index of images: one PNG each, 64 px.

python examples/digits_as_files.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")
digits = load_digits()
for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
    path = folder / str(digit) / f"{number:04d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.uint8(pixels * 255 / 16).repeat(8, axis=0).repeat(8, axis=1)
    Image.fromarray(grey).convert("RGB").save(path)
print(f"{len(digits.images):,} images in {folder}")
