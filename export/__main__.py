"""Exports the encoder of a finished run: a SavedModel for TF Serving, or one file.

python -m tfhash.export --model_dir=DIR [--export_dir=DIR/export] [--noverify]
python -m tfhash.export --model_dir=DIR --format=tflite|onnx [--tflite_precision=float16]
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfhash.cli import quiet

quiet.start()

import numpy as np  # noqa: E402
from absl import flags, logging  # noqa: E402

from tfhash import export  # noqa: E402
from tfhash.cli import flags as config_flags  # noqa: E402
from tfhash.cli import mains  # noqa: E402
from tfhash.errors import UserError, unwritable  # noqa: E402
from tfhash.export import onnx, portable, signatures, tflite  # noqa: E402
from tfhash.export.folded import folded  # noqa: E402
from tfhash.export.verify import VerificationError  # noqa: E402
from tfhash.hashers.shallow import ShallowSettings  # noqa: E402
from tfhash.runs import finished, folder  # noqa: E402
from tfhash.runs.experiment_settings import Experiment  # noqa: E402

NAME = "tfhash.export"
VERIFIED_IMAGES = 256
# What tells where the files of the run are now: those of its data, and those of its encoder.
OF_DATA = ("data_dir", "labels_csv", "triplets_csv")
OF_ENCODER = ("weights", "features_file", "allow_pickle_weights")
METADATA_KEYS = ("method", "dataset", "protocol", "split_fingerprint", "seed", "ties", "map")

_SNIPPET = """\
  import tensorflow as tf
  encode = tf.saved_model.load({path!r}).signatures["encode_images"]
  images = tf.zeros([1, {size}, {size}, 3], tf.uint8)  # RGB, any height and width
  answer = encode(images=images)
  print(answer["code"].numpy())"""


def define_flags() -> None:
    config_flags.define_path("model_dir", None, "folder of a finished run", required=True)
    config_flags.define_path("export_dir", None, "where versions go; by default MODEL_DIR/export")
    config_flags.define_of_run(Experiment, OF_DATA)
    config_flags.define_of_run(ShallowSettings, OF_ENCODER)
    config_flags.define_mirrored_codes()
    flags.DEFINE_enum(
        "format",
        "saved_model",
        ["saved_model", "tflite", "onnx"],
        "saved_model writes EXPORT_DIR/N; tflite encoder_PRECISION.tflite; onnx encoder.onnx, and "
        "needs the extra onnx",
    )
    flags.DEFINE_enum(
        "tflite_precision", "float32", tflite.PRECISIONS, "with --format=tflite: of the weights"
    )
    flags.DEFINE_bool(
        "verify",
        True,
        "publish a SavedModel only where a process without tfhash gets the codes of Keras from it; "
        "of other formats count the bits that differ from the SavedModel's",
    )
    flags.DEFINE_bool(
        "fold",
        True,
        "make batch normalisation part of the convolutions before it, and count the bits that "
        "differ; a graph without it is faster",
    )


def main(argv: list[str]) -> int:
    logging.set_verbosity(logging.WARNING)  # TensorFlow would tell each file that it writes
    model_dir = Path(flags.FLAGS.model_dir)
    export_dir = Path(flags.FLAGS.export_dir or model_dir / "export")
    given = flags.FLAGS
    if given["tflite_precision"].present and given.format != "tflite":
        raise UserError(
            f"--tflite_precision: not with --format={given.format}; allowed: with --format=tflite"
        )
    own = config_flags.of_run((*OF_DATA, *OF_ENCODER)) | config_flags.mirrored_codes()
    try:
        if given.format == "saved_model":
            export_run(model_dir, export_dir, given.verify, given.fold, **own)
        else:
            kind = given.format, given.tflite_precision
            export_file(model_dir, export_dir, *kind, given.verify, given.fold, **own)
    except VerificationError as error:
        mains.print_error(NAME, f"{error}; nothing was published")
        return 1
    except OSError as error:
        raise unwritable("--export_dir", export_dir, error) from None
    return 0


def export_run(
    model_dir: Path, export_dir: Path, verified: bool = True, fold: bool = True, **own: Any
) -> Path:
    """Publishes the encoder of a run folder, prints where and how to load it; returns where.

    verified: on VERIFIED_IMAGES of the run's data set, or all where there are fewer. fold: see
    `folded.folded`. own: where the files of the run are now, allow_pickle_weights and
    mirrored_codes, by the names of flags.
    Raises UserError for a folder without a finished run or an export_dir that cannot be made, and
    what `save` raises.
    """
    encoder, arguments = _read(model_dir, export_dir, own)
    limit = folder.read(model_dir)[0].experiment.max_image_megapixels
    images = _images(model_dir, own) if verified else None
    encoder = folded(encoder, images) if fold else encoder
    path = export.save(
        encoder, **arguments, images=images, export_dir=export_dir, max_image_megapixels=limit
    )
    if images is None:
        print("nothing was verified (--noverify)")
    else:
        print(f"verified on {len(images)} images: through each loader the codes of Keras")
    _report(path, arguments["code_length"], arguments["image_size"])
    return path


def export_file(
    model_dir: Path,
    export_dir: Path,
    kind: str,
    precision: str,
    verified: bool = True,
    fold: bool = True,
    **own: Any,
) -> Path:
    """Writes the encoder of a run folder as one file, prints how far its codes are from those of
    the SavedModel; returns its path.

    kind: tflite or onnx. precision: see `tflite.save`; verified, fold, own, and what it raises:
    see `export_run`.
    """
    encoder, arguments = _read(model_dir, export_dir, own)
    calibrated = kind == "tflite" and precision == "int8"
    images = _images(model_dir, own) if verified or calibrated else None
    encoder = folded(encoder, images if verified else None) if fold else encoder
    if kind == "tflite":
        path, codes = export_dir / f"encoder_{precision}.tflite", tflite.codes
        calibration = None
        if calibrated and images is not None:  # it is compared on others than it is calibrated on
            calibration, images = images[::2], images[1::2]
        tflite.save(encoder, **arguments, precision=precision, path=path, calibration=calibration)
    else:
        path, codes = export_dir / "encoder.onnx", onnx.codes
        onnx.save(encoder, **arguments, path=path)
    print(f"wrote {path}")
    if images is None or not verified:
        print("nothing was compared (--noverify)")
        return path
    with tempfile.TemporaryDirectory() as folder:
        saved_model = export.save(encoder, **arguments, images=None, export_dir=folder)
        difference = portable.difference(codes(path, images), images, saved_model)
    print(f"beside the SavedModel {difference}")
    return path


def _images(model_dir: Path, own: Mapping[str, Any]) -> np.ndarray:
    of_data = {name: value for name, value in own.items() if name in OF_DATA}
    return finished.sample_images(model_dir, VERIFIED_IMAGES, **of_data)


def _read(model_dir: Path, export_dir: Path, own: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The encoder of a run, and what each format wants to know about it."""
    given, metrics = folder.read(model_dir)
    try:
        export_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable("--export_dir", export_dir, error) from None
    mirrored = {name: value for name, value in own.items() if name == "mirrored_codes"}
    of_encoder = {name: value for name, value in own.items() if name in OF_ENCODER}
    hasher = finished.load(model_dir, **of_encoder, **mirrored)
    metadata = {key: metrics[key] for key in METADATA_KEYS}
    if any(getattr(given.settings, name, False) != value for name, value in mirrored.items()):
        del metadata["map"]  # that of the run's own codes
        metadata |= mirrored
    return hasher.encoder, {
        "code_length": hasher.code_length,
        "image_size": hasher.image_size,
        "metadata": metadata,
    }


def _report(path: Path, code_length: int, image_size: int) -> None:
    print(f"published {path}")
    for name, signature in signatures.describe(code_length).items():
        inputs, outputs = (
            ", ".join(f"{key} {value}" for key, value in signature[side].items())
            for side in ("inputs", "outputs")
        )
        print(f"  {name}: {inputs} -> {outputs}")
    print(f"  serving_default: {signatures.DEFAULT}")
    print("to load it:")
    print(_SNIPPET.format(path=str(path), size=image_size))


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
