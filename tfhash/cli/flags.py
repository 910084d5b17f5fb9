"""Command line flags made from the fields of configurations. For mains only."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from absl import flags

from tfhash import settings
from tfhash.errors import UserError

_DEFINE: dict[type, Any] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define(
    config_class: type, prefix: str = "", flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines --PREFIXname for each field of a dataclass, with the field's default and help.

    A field is made by `settings.setting` and is a bool, int, float or str, one of these or None, or
    a tuple of one of them, which is given as a list with commas. A field that dataclasses share
    by inheriting it has one flag.
    """
    for name, field, explanation in settings.explanations(config_class):
        flag = prefix + name
        if flag in flag_values and flag_values[flag].help == explanation:
            continue
        kind, _ = settings.kind_of(config_class, name)
        if kind is tuple:
            of_items: Any = field.default
            default = [str(item) for item in of_items]
            flags.DEFINE_list(flag, default, explanation, flag_values=flag_values)
        else:
            _DEFINE[kind](flag, field.default, explanation, flag_values=flag_values)


def parsed(
    config_class: type, prefix: str = "", flag_values: flags.FlagValues = flags.FLAGS
) -> Any:
    """The dataclass as the parsed flags have it. UserError for a list with a wrong item."""
    values: dict[str, Any] = {}
    for name in settings.fields_of(config_class):
        flag = prefix + name
        values[name] = flag_values[flag].value
        kind, item = settings.kind_of(config_class, name)
        if item is not None:
            values[name] = items(flag, values[name], item)
    return settings.build(config_class, values)


def items(name: str, parts: Sequence[str], item: type) -> tuple:
    """The parts of the list that --name was given, as values of type item. UserError for others."""
    try:
        return tuple(item(part) for part in parts)
    except ValueError:
        raise UserError(
            f"--{name}: {','.join(parts)}; allowed: {item.__name__}s with commas between them"
        ) from None


def in_flags(message: str, names: Collection[str] | flags.FlagValues, method: str | None) -> str:
    """A message of the library, whose settings stand in backticks, in the names of flags.

    names: of all flags; method: that of --method, if there is one. `margin_sr` becomes
    --ssgah.margin_sr where the method is ssgah, and `steps` --steps.
    """

    def flag(match: re.Match) -> str:
        own = f"{method}.{match[1]}"
        return f"--{own if own in names and match[1] not in names else match[1]}"

    return re.sub(r"`([a-z][a-z0-9_]*)`", flag, message)
