"""Exports the encoder of a finished run as a SavedModel for TF Serving.

python -m tfhash.export --model_dir=DIR [--export_dir=DIR/export]
"""

from __future__ import annotations

from pathlib import Path

from absl import flags, logging

from tfhash import experiment, export, mains
from tfhash.errors import UserError
from tfhash.export import signatures
from tfhash.export.verify import VerificationError

NAME = "tfhash.export"
VERIFIED_IMAGES = 64
METADATA_KEYS = ("method", "dataset", "protocol", "split_fingerprint", "seed", "ties", "map")

_SNIPPET = """\
  import tensorflow as tf
  encode = tf.saved_model.load({path!r}).signatures["encode_images"]
  images = tf.zeros([1, {size}, {size}, 3], tf.uint8)  # RGB, any height and width
  answer = encode(images=images)
  print(answer["code"].numpy())"""


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "folder of a finished run", required=True)
    flags.DEFINE_string("export_dir", None, "where versions go; by default MODEL_DIR/export")


def main(argv: list[str]) -> int:
    logging.set_verbosity(logging.WARNING)  # TensorFlow would tell each file that it writes
    model_dir = Path(flags.FLAGS.model_dir)
    try:
        export_run(model_dir, Path(flags.FLAGS.export_dir or model_dir / "export"))
    except VerificationError as error:
        mains.print_error(NAME, f"{error}; nothing was published")
        return 1
    return 0


def export_run(model_dir: Path, export_dir: Path) -> Path:
    """Publishes the encoder of a run folder, prints where and how to load it; returns where.

    Raises UserError for a folder without a finished run or an export_dir that cannot be made, and
    what `save` raises.
    """
    *_, metrics = experiment.read(model_dir)
    try:
        export_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--export_dir: {error}") from None
    hasher = experiment.load(model_dir)
    path = export.save(
        hasher.encoder,
        code_length=hasher.code_length,
        image_size=hasher.image_size,
        metadata={key: metrics[key] for key in METADATA_KEYS},
        images=experiment.sample_images(model_dir, VERIFIED_IMAGES),
        export_dir=export_dir,
    )
    _report(path, hasher.code_length, hasher.image_size)
    return path


def _report(path: Path, code_length: int, image_size: int) -> None:
    print(f"published {path}")
    for name, signature in signatures.describe(code_length).items():
        inputs, outputs = (
            ", ".join(f"{key} {value}" for key, value in signature[side].items())
            for side in ("inputs", "outputs")
        )
        print(f"  {name}: {inputs} -> {outputs}")
    print("  serving_default: encode_images")
    print("to load it:")
    print(_SNIPPET.format(path=str(path), size=image_size))


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
