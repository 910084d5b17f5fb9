"""Configurations: frozen dataclasses whose fields say what they are for and what they may be.

A field is made by `setting`, which keeps its explanation, its range and its choices in one place:
flags, help pages, the keywords of the Python classes and the checks are all made of that.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfhash.errors import UserError

GROUPS = ("data", "split", "method", "network", "training", "judging")


def setting(
    default: Any,
    explanation: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    group: str = "method",
    decides: bool = True,
    path: bool = False,
    from_run: bool = True,
    search: Sequence[Any] = (),
    open: bool = False,
) -> Any:
    """A field of a configuration, from which its flag and its keyword are made.

    least, above, most, below: the ends of its range, themselves allowed or not. choices: the only
    values. Both hold for each item of a tuple, and None stands for a default and is allowed.
    group: one of GROUPS, under which `--help` shows it. decides: whether the field can change the
    result of a run; a run folder refuses to go on under other values of the fields that do. path:
    whether it names a file or folder; then a `~` stands for the home folder. from_run: whether what
    a run folder says of it counts for who reads that folder. False for what lets code run or is
    written to: a folder from elsewhere has no say in that. search: values that a search for good
    settings draws from; None there leaves the field as it was given. open: whether the method's
    paper leaves the field open, or the name of a variant says it; of the others a value that is not
    the default is told as a difference from the paper.
    """
    limits = {"least": least, "above": above, "most": most, "below": below}
    return dataclasses.field(
        default=default,
        metadata={
            "help": explanation,
            "limits": {name: bound for name, bound in limits.items() if bound is not None},
            "choices": None if choices is None else tuple(choices),
            "group": group,
            "decides": decides,
            "path": path,
            "from_run": from_run,
            "search": tuple(search),
            "open": open,
        },
    )


def with_default(config_class: type, name: str, default: Any) -> Any:
    """The field of a configuration class again, with another default, for a class below it."""
    return dataclasses.field(default=default, metadata=fields_of(config_class)[name].metadata)


@dataclass(frozen=True)
class Configuration:
    """The base of all configurations: each field is checked when one is made."""

    def __post_init__(self) -> None:
        check(self)


def check(config: Any) -> None:
    """UserError, naming the field, for the first one of another type, choice or range."""
    for name, field in fields_of(type(config)).items():
        value = getattr(config, name)
        kind, item = kind_of(type(config), name)
        if value is None and (field.default is None or is_optional(type(config), name)):
            continue
        if item is not None and not isinstance(value, tuple):
            raise UserError(f"`{name}`: {value!r}; allowed: a tuple of {item.__name__}s")
        for one in value if kind is tuple else (value,):
            _check_one(name, field, item or kind, one)


_ACCEPTED = {bool: bool, int: numbers.Integral, float: numbers.Real, str: str}


def _check_one(name: str, field: dataclasses.Field, kind: type, value: Any) -> None:
    wrong_bool = isinstance(value, bool) and kind is not bool
    if wrong_bool or not isinstance(value, _ACCEPTED[kind]):
        raise UserError(f"`{name}`: {value!r}; allowed: {_KINDS[kind]}")
    choices = field.metadata["choices"]
    if choices is not None and value not in choices:
        raise UserError(f"`{name}`: {value!r}; allowed: {', '.join(map(str, choices))}")
    limits = field.metadata["limits"]
    if not all(_HOLDS[end](value, bound) for end, bound in limits.items()):
        raise UserError(f"`{name}`: {value}; {in_words(limits)}")


_KINDS = {bool: "True or False", int: "whole numbers", float: "numbers", str: "text"}
_HOLDS = {  # NaN is in no range
    "least": lambda value, bound: value >= bound,
    "above": lambda value, bound: value > bound,
    "most": lambda value, bound: value <= bound,
    "below": lambda value, bound: value < bound,
}


def in_words(limits: Mapping[str, float]) -> str:
    """What a range allows, as errors and help pages say it."""
    if set(limits) == {"least", "most"}:
        return f"allowed: {limits['least']:.15g} to {limits['most']:.15g}"
    names = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    ends = [f"{words} {limits[end]:.15g}" for end, words in names.items() if end in limits]
    return f"allowed: {' and '.join(ends)}"


def fields_of(config_class: type) -> dict[str, dataclasses.Field]:
    """The fields of a configuration class by their names."""
    return {field.name: field for field in dataclasses.fields(config_class)}


def build(config_class: type, values: Mapping[str, Any]) -> Any:
    """The configuration of plain values, e.g. of those that metrics.json holds.

    Other names are passed over, and fields that are not there keep their defaults. A list becomes
    a tuple where the field is one, and a path gets the home folder for its `~`; a default keeps it,
    so that no record tells whose home it was.
    """
    arguments = {}
    for name, field in fields_of(config_class).items():
        if name in values:
            value = values[name]
            kind, item = kind_of(config_class, name)
            if kind is tuple and isinstance(value, list):
                value = tuple(value)
            if field.metadata["path"] and isinstance(value, str) and value != field.default:
                value = os.path.expanduser(value)
            arguments[name] = value
    return config_class(**arguments)


def lines(config: Any, prefix: str = "") -> list[str]:
    """The flags that give this configuration again, `--PREFIXname=value` each; None is left out."""
    result = []
    for name in fields_of(type(config)):
        value = getattr(config, name)
        if value is not None:
            result.append(f"--{prefix}{name}={as_text(value)}")
    return result


def as_text(value: Any) -> str:
    """A value as it stands in a command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def deciding(config: Any, prefix: str = "") -> dict[str, Any]:
    """The fields that can change a result, by the names of their flags."""
    return {
        prefix + name: getattr(config, name)
        for name, field in fields_of(type(config)).items()
        if field.metadata["decides"]
    }


def not_as_published(config: Any) -> dict[str, Any]:
    """The fields that the method's paper fixes and that have other values, by their names."""
    return {
        name: getattr(config, name)
        for name, field in fields_of(type(config)).items()
        if field.metadata["decides"]
        and not field.metadata["open"]
        and getattr(config, name) != field.default
    }


@functools.cache  # the hints of a class take a while to evaluate
def _hints(config_class: type) -> dict[str, Any]:
    return typing.get_type_hints(config_class)


def is_optional(config_class: type, name: str) -> bool:
    """Whether a field may be None."""
    return type(None) in typing.get_args(_hints(config_class)[name])


def kind_of(config_class: type, name: str) -> tuple[type, type | None]:
    """The plain type of a field (of `int | None`, int), and for a tuple that of its items."""
    hint = _hints(config_class)[name]
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple, typing.get_args(hint)[0]
    return hint, None


def explanations(config_class: type) -> Iterator[tuple[str, dataclasses.Field, str]]:
    """Name, field, and its explanation with the default and what is allowed."""
    for name, field in fields_of(config_class).items():
        text = field.metadata["help"]
        if field.metadata["choices"]:
            missing = [c for c in map(str, field.metadata["choices"]) if c not in text]
            text += f"; one of {', '.join(map(str, field.metadata['choices']))}" * bool(missing)
        if field.metadata["limits"]:
            text += f"; {in_words(field.metadata['limits'])}"
        yield name, field, text
