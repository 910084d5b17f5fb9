"""On what a number was measured: the machine, and the versions that can change it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import tensorflow as tf

import tfhash


def hardware() -> str:
    """The processor, its threads that this process may use, and the GPUs."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux: the machine's architecture has to do
    gpus = [
        tf.config.experimental.get_device_details(device).get("device_name", "GPU")
        for device in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join([f"{processor} x {len(os.sched_getaffinity(0))}", *gpus])


def versions() -> dict[str, str]:
    """The versions that can change a number."""
    packages = ("tensorflow", "keras", "numpy", "scikit-learn")
    found = {package: importlib.metadata.version(package) for package in packages}
    # A checkout on the PYTHONPATH is not an installed package.
    return {"python": platform.python_version(), "tfhash": tfhash.__version__, **found}
