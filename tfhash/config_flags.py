"""Command line flags made from the fields of configuration dataclasses. For mains only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from tfhash import config_values
from tfhash.errors import UserError

_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define(
    config_class: type, prefix: str = "", flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines --PREFIXname for each field of a dataclass, with the field's default and help.

    A field is made by `hasher.setting` and is a bool, int, float or str, one of these or None, or
    a tuple of one of them, which is given as a list with commas. A field that dataclasses share
    by inheriting it has one flag.
    """
    for field in dataclasses.fields(config_class):
        name, explanation = prefix + field.name, field.metadata["help"]
        if name in flag_values and flag_values[name].help == explanation:
            continue
        kind, _ = config_values.kind_of(config_class, field.name)
        if kind is tuple:
            default = [str(item) for item in field.default]
            flags.DEFINE_list(name, default, explanation, flag_values=flag_values)
        else:
            _DEFINE[kind](name, field.default, explanation, flag_values=flag_values)


def parsed(
    config_class: type, prefix: str = "", flag_values: flags.FlagValues = flags.FLAGS
) -> Any:
    """The dataclass as the parsed flags have it. UserError for a list with a wrong item."""
    values = {}
    for field in dataclasses.fields(config_class):
        name = prefix + field.name
        values[field.name] = flag_values[name].value
        kind, item = config_values.kind_of(config_class, field.name)
        if kind is tuple:
            values[field.name] = items(name, values[field.name], item)
    return config_values.build(config_class, values)


def items(name: str, parts: Sequence[str], item: type) -> tuple:
    """The parts of the list that --name was given, as values of type item. UserError for others."""
    try:
        return tuple(item(part) for part in parts)
    except ValueError:
        raise UserError(
            f"--{name}: {','.join(parts)}; allowed: {item.__name__}s with commas between them"
        ) from None
