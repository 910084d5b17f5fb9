"""GIST (Oliva and Torralba, IJCV 42(3), 2001): energies of a Gabor bank, averaged over a grid."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from tfhash.errors import UserError

# All numbers and steps are those of the authors' LMgist.m (LabelMe toolbox). INRIA's lear_gist
# has the same filters and prefilter, but neither stretches the image nor pads before the filters.
SCALES = 4
ORIENTATIONS = 8
GRID = 4  # cells a side
DIMENSION = SCALES * ORIENTATIONS * GRID**2

_FINEST_FREQUENCY = 0.3  # cycles a pixel, of the first scale
_SCALE_RATIO = 1.85  # of the frequencies of neighbouring scales
_RADIAL_SHARPNESS = 10 * 0.35  # of the Gaussian in frequency / centre - 1
_ANGULAR_SHARPNESS = 2 * np.pi * 16 * ORIENTATIONS**2 / 32**2  # of the Gaussian in radians
_FILTER_PADDING = 32  # pixels a side; the coarsest filter's envelope has deviations of 9 and 12

_PREFILTER_CUTOFF = 4  # cycles a padded image, where the low-pass is 1/2
_PREFILTER_PADDING = 5  # pixels a side
_CONTRAST_FLOOR = 0.2  # keeps the noise of flat regions small


def gist(images: tf.Tensor, size: int = 32) -> tf.Tensor:
    """The GIST of RGB images: uint8 or floating [n, H, W, 3] -> float32 [n, 512], never negative.

    Ordered by scale (finest first), orientation (wave vectors at 0, 22.5, ... 157.5 degrees,
    anticlockwise from the horizontal), row and column of the cell. Each image is stretched to the
    range [0, 255], so that any range of values will do; a constant one gives zeros.

    size: the side in pixels to which grey images are brought, aspect ratio not kept; 32 or more,
    a multiple of 4. The filters' frequencies are per pixel of it, so it should be the images' own
    side, 256 for photos. Enlarging adds no detail, only empty filters: of 32-pixel images brought
    to 256, three of the four scales lie above the finest detail that there is.

    Made of TensorFlow operations only: in a tf.function it runs in tf.data and in a SavedModel.

    Raises UserError, one line, for another shape, dtype or size.
    """
    images = tf.convert_to_tensor(images)
    _check(images)
    check_size(size)
    grey = tf.reduce_mean(tf.cast(images, tf.float32), axis=-1, keepdims=True)
    grey = tf.image.resize(grey, (size, size), antialias=True)[..., 0]
    return _cell_energies(_prefiltered(_stretched(grey)))


def check_size(size: int) -> None:
    """UserError for a size that `gist` cannot work at."""
    # Mirrored padding cannot be wider than what it mirrors.
    if size < _FILTER_PADDING or size % GRID:
        raise UserError(f"size: {size}; a multiple of {GRID} from {_FILTER_PADDING} is needed")


def _check(images: tf.Tensor) -> None:
    if images.shape.rank != 4 or images.shape[-1] != 3:
        raise UserError(f"images: shape {images.shape}; [n, H, W, 3] is needed")
    if images.dtype != tf.uint8 and not images.dtype.is_floating:
        raise UserError(f"images: dtype {images.dtype.name}; uint8 or floating is needed")


def _stretched(grey: tf.Tensor) -> tf.Tensor:
    """[n, s, s] of any range -> [0, 255] in each image."""
    darkest = tf.reduce_min(grey, axis=(1, 2), keepdims=True)
    brightest = tf.reduce_max(grey, axis=(1, 2), keepdims=True)
    return 255 * tf.math.divide_no_nan(grey - darkest, brightest - darkest)


def _prefiltered(grey: tf.Tensor) -> tf.Tensor:
    """[n, s, s] in [0, 255] -> its logarithm without low frequencies, over the local deviation."""
    padded = _mirrored(tf.math.log1p(grey), _PREFILTER_PADDING)
    side = padded.shape[-1]
    low_pass = tf.constant(_low_pass(side))

    def blurred(image: tf.Tensor) -> tf.Tensor:
        spectrum = tf.signal.rfft2d(image) * tf.cast(low_pass, tf.complex64)
        return tf.signal.irfft2d(spectrum, fft_length=(side, side))

    detail = padded - blurred(padded)
    # Of a square, the blur is negative only where rounding makes it so.
    deviation = tf.sqrt(tf.nn.relu(blurred(tf.square(detail))))
    return _cropped(detail / (_CONTRAST_FLOOR + deviation), _PREFILTER_PADDING)


def _cell_energies(images: tf.Tensor) -> tf.Tensor:
    """[n, s, s] -> [n, 512]: the modulus of each filter's response, averaged over each cell."""
    cell = images.shape[-1] // GRID
    padded = _mirrored(images, _FILTER_PADDING)
    spectrum = tf.signal.fft2d(tf.cast(padded, tf.complex64))
    radial, angular = map(tf.constant, _gabor_factors(padded.shape[-1]))
    energies = []
    # Filter by filter: all at once they would take 32 complex images for each image.
    for scale in range(SCALES):
        for orientation in range(ORIENTATIONS):
            transfer = tf.cast(radial[scale] * angular[orientation], tf.complex64)
            response = tf.abs(tf.signal.ifft2d(spectrum * transfer))
            cells = tf.reshape(_cropped(response, _FILTER_PADDING), (-1, GRID, cell, GRID, cell))
            energies.append(tf.reshape(tf.reduce_mean(cells, axis=(2, 4)), (-1, GRID**2)))
    return tf.concat(energies, axis=-1)


def _mirrored(images: tf.Tensor, padding: int) -> tf.Tensor:
    return tf.pad(images, ((0, 0), (padding, padding), (padding, padding)), mode="SYMMETRIC")


def _cropped(images: tf.Tensor, padding: int) -> tf.Tensor:
    return images[:, padding:-padding, padding:-padding]


@functools.cache
def _low_pass(side: int) -> np.ndarray:
    """float32 [side, side // 2 + 1]: the half-plane of a Gaussian that rfft2d multiplies."""
    vertical, horizontal = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    cycles = side * np.hypot(vertical, horizontal)
    return np.exp2(-((cycles / _PREFILTER_CUTOFF) ** 2)).astype(np.float32)


@functools.cache
def _gabor_factors(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Transfer functions in polar coordinates: filter (i, j) is radial[i] * angular[j].

    float32 [4, side, side] and [8, side, side], in fft2d's order of frequencies. Each filter is
    a bump on one side of the origin only, so its response is complex and its modulus an envelope.
    """
    frequencies = np.fft.fftfreq(side)  # cycles a pixel
    radius = np.hypot(frequencies[:, None], frequencies)
    centres = _FINEST_FREQUENCY / _SCALE_RATIO ** np.arange(SCALES)[:, None, None]
    radial = np.exp(-_RADIAL_SHARPNESS * (radius / centres - 1) ** 2)

    # Rows count downwards, so the plus makes the angles anticlockwise.
    directions = np.pi * np.arange(ORIENTATIONS)[:, None, None] / ORIENTATIONS
    turn = np.arctan2(frequencies[:, None], frequencies) + directions
    turn = np.where(turn > np.pi, turn - 2 * np.pi, turn)
    angular = np.exp(-_ANGULAR_SHARPNESS * turn**2)
    return radial.astype(np.float32), angular.astype(np.float32)
