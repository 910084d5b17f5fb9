"""Configuration dataclasses from plain values, and as the lines of a flagfile."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from tfhash.errors import UserError


def build(config_class: type, values: Mapping[str, Any]) -> Any:
    """The dataclass of plain values, e.g. of those that metrics.json holds.

    Other names are passed over, and fields that are not there keep their defaults.
    """
    arguments = {}
    for field in dataclasses.fields(config_class):
        if field.name in values:
            value = values[field.name]
            kind, item = kind_of(config_class, field.name)
            arguments[field.name] = tuple(item(v) for v in value) if kind is tuple else value
    return config_class(**arguments)


def lines(config: Any, prefix: str = "") -> list[str]:
    """The flags that give this dataclass again, `--PREFIXname=value` each; None is left out."""
    result = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = ",".join(str(item) for item in value)
        if isinstance(value, bool):
            value = str(value).lower()
        if value is not None:
            result.append(f"--{prefix}{field.name}={value}")
    return result


def deciding(config: Any, prefix: str = "") -> dict[str, Any]:
    """The fields that can change a result, by the names of their flags."""
    return {
        prefix + field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata["decides"]
    }


def check(
    config: Any,
    prefix: str = "",
    *,
    choices: Mapping[str, Sequence[str | int]],
    least: Mapping[str, int],
) -> None:
    """UserError for the first field that is none of its choices or below its least value.

    Of a tuple each item is looked at; None stands for a default and is allowed.
    """
    for name, allowed in choices.items():
        value = getattr(config, name)
        if value not in allowed:
            options = ", ".join(map(str, allowed))
            raise UserError(f"--{prefix}{name}: {value!r}; allowed: {options}")
    for name, bound in least.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not number >= bound:  # NaN neither
                raise UserError(f"--{prefix}{name}: {number}; at least {bound} is allowed")


@functools.cache  # the hints of a class take a while to evaluate
def kind_of(config_class: type, name: str) -> tuple[type, type | None]:
    """The plain type of a field (of `int | None`, int), and for a tuple that of its items."""
    hint = typing.get_type_hints(config_class)[name]
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple, typing.get_args(hint)[0]
    return hint, None
