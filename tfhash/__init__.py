"""tfhash: deep semantic hashing with GANs on Keras 3 / TensorFlow 2.

    import tfhash

    hasher = tfhash.SSGAH(code_length=48, seed=0)   # keywords are the names of the flags
    hasher.fit(images, labels)                      # uint8 [n, H, W, 3]; labels int [n], -1: none
    codes = hasher.encode(images)                   # uint8 [n, 6], packed bits
    hasher.save("mine"); hasher = tfhash.load("mine")
    tfhash.evaluate(query_codes, database_codes, query_labels, database_labels, code_length=48)
    tfhash.export_saved_model(hasher, "mine/export")
    index = tfhash.Index(codes, ids=paths, code_length=48); index.search(query_codes, k=10)

Each method of tfhash.methods is a class here. Names are looked up when they are first used, so
that `import tfhash` costs no TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfhash.errors import UserError as UserError
    from tfhash.evaluation import evaluate as evaluate
    from tfhash.export import export_saved_model as export_saved_model
    from tfhash.runs.finished import load as load
    from tfhash.search.index import Index as Index

__version__ = "0.1.0"

# TensorFlow leaves oneDNN off where a CPU has no AVX-512, and a training at 128 px takes 1.4 times
# as long there (docs/benchmarks.md). It reads this while it is imported; what a user has set stays.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_FACE = {
    "Index": "tfhash.search.index",
    "UserError": "tfhash.errors",
    "export_saved_model": "tfhash.export",
    "load": "tfhash.runs.finished",
}


def _methods() -> dict[str, str]:
    """The classes of all methods, and the modules that have them, without an import of these.

    A class is called as its module is, but for underscores and capitals: DSHGAN stands in dsh_gan.
    """
    found = {}
    for folder in __path__:
        for module in pkgutil.iter_modules([str(Path(folder, "methods"))]):
            path = Path(folder, "methods", module.name)
            source = path / "hasher.py" if module.ispkg else path.with_suffix(".py")
            classes = re.findall(r"^class (\w+)\(", source.read_text(encoding="utf-8"), re.M)
            wanted = module.name.replace("_", "")
            for name in classes:
                if name.lower() == wanted:
                    found[name] = f"{__name__}.methods.{module.name}"
    return found


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "evaluate":  # the command's module, which can be called: see there
        return importlib.import_module("tfhash.evaluate")
    module = _FACE.get(name) or _methods().get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACE, *_methods(), "evaluate"})
