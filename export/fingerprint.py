"""The fingerprint of an export: equal where the codes are of one model, whatever it is called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, node_def_pb2

OUTPUT = "fingerprint"
DIGITS = 32  # of sha256: 128 bits
_SCHEME = b"tfhash fingerprint 1"  # to be counted up where the same graph shall get another one


def of(function: tf.types.experimental.ConcreteFunction) -> str:
    """DIGITS hexadecimal digits of all that decides what a function answers.

    Its graph, with every operation, attribute and constant, and the dtypes, shapes and bytes of
    what it captures, the weights. Names do not enter: Keras counts layers up within a process. The
    same function gets the same digits in every process of one TensorFlow.
    """
    digest = hashlib.sha256(_SCHEME)
    for line in _Canonical(function.graph.as_graph_def()).lines():
        digest.update(line)
    for value in _captured(function):
        digest.update(f"{value.dtype} {value.shape}".encode())
        # Not of the bytes in memory: an array of strings holds addresses there.
        digest.update(value.tobytes() if value.dtype != object else repr(value.tolist()).encode())
    return digest.hexdigest()[:DIGITS]


def _captured(function: tf.types.experimental.ConcreteFunction) -> Iterable[Any]:
    """What a function holds from outside, as NumPy arrays, in the order of its use."""
    variables = {id(variable.handle): variable for variable in function.graph.variables}
    for tensor in function.captured_inputs:
        yield variables.get(id(tensor), tensor).numpy()


class _Canonical:
    """A graph and its functions, numbered in the order in which they are made and called."""

    def __init__(self, graph: Any):
        self._nodes = graph.node
        self._library = {function.signature.name: function for function in graph.library.function}
        self._called: dict[str, int] = {}  # in the order of their first call

    def lines(self) -> Iterable[bytes]:
        yield from self._node_lines(self._nodes, {})
        done = 0
        while done < len(self._called):
            function = self._library[list(self._called)[done]]
            arguments = function.signature.input_arg
            names = {argument.name: f"argument {i}" for i, argument in enumerate(arguments)}
            yield from self._node_lines(function.node_def, names)
            for output in function.signature.output_arg:
                yield f"returns {_numbered(function.ret[output.name], names)}\n".encode()
            done += 1

    def _node_lines(
        self, nodes: Iterable[node_def_pb2.NodeDef], names: dict[str, str]
    ) -> Iterable[bytes]:
        """names: of what is there before the nodes, which are added."""
        nodes = list(nodes)
        names.update({node.name: f"node {number}" for number, node in enumerate(nodes)})
        for node in nodes:
            inputs = [_numbered(name, names) for name in node.input]
            yield f"{node.op} of {inputs}\n".encode()
            for name in sorted(node.attr):
                if not name.startswith("_"):  # such attributes belong to no operation
                    yield f"{name}: ".encode() + self._attribute(node.attr[name])

    def _attribute(self, value: attr_value_pb2.AttrValue) -> bytes:
        """Its bytes, with numbers in place of the names of functions."""
        numbered = attr_value_pb2.AttrValue.FromString(value.SerializeToString())
        kind = numbered.WhichOneof("value")
        functions = {"func": [numbered.func], "list": numbered.list.func}.get(kind or "", [])
        for function in functions:
            function.name = str(self._called.setdefault(function.name, len(self._called)))
        return numbered.SerializeToString(deterministic=True)


def _numbered(name: str, names: dict[str, str]) -> str:
    """An input such as node:output:0 or ^node, with the number of its node."""
    node, separator, output = name.lstrip("^").partition(":")
    return "^" * name.startswith("^") + names[node] + separator + output
