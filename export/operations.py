"""What a server must know to load a graph: its operations and their attributes."""

from __future__ import annotations

import itertools
from pathlib import Path

from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfhash.export.verify import VerificationError

OLDEST = "2.18"
_FILE = Path(__file__).with_name("operations_2_18.txt")


def check(folder: Path) -> None:
    """Refuses a SavedModel that TF Serving 2.18, or any later one, could not run.

    Raises VerificationError, one line, at the first function under jit_compile, to which TF Serving
    answers "XLA compilation disabled", and at the first operation, of the graph or of one of its
    functions, that TensorFlow 2.18 does not know at all or not with one of its attributes.
    """
    saved_model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (meta_graph,) = saved_model.meta_graphs
    functions = meta_graph.graph_def.library.function
    for function in functions:
        if function.attr["_XlaMustCompile"].b:
            raise VerificationError(
                f"function {function.signature.name}: jit_compile, which TF Serving has switched "
                "off (Keras compiles convolutions with groups)"
            )
    known = known_operations()
    of_functions = (function.node_def for function in functions)
    for node in itertools.chain(meta_graph.graph_def.node, *of_functions):
        # An attribute that begins with _ belongs to no operation: none needs to know it.
        attributes = {name for name in node.attr if not name.startswith("_")}
        unknown = attributes - known.get(node.op, frozenset())
        if node.op not in known or unknown:
            of_what = f"attributes {', '.join(sorted(unknown))} of " if node.op in known else ""
            raise VerificationError(
                f"{of_what}operation {node.op} ({node.name}): unknown to TensorFlow {OLDEST}"
            )


def known_operations() -> dict[str, frozenset[str]]:
    """The operations of TensorFlow 2.18 by name, with the names of their attributes."""
    lines = _FILE.read_text(encoding="ascii").splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return {name: frozenset(attributes) for name, *attributes in rows}
