"""Command line flags made from the fields of configurations. For mains only."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from absl import flags
from absl.flags import _flagvalues

from tfhash import settings
from tfhash.errors import UserError
from tfhash.names import ENCODING, ERRORS

# A flagfile may name folders that are no UTF-8, as flags.txt of a run does; absl ends at them.
vars(_flagvalues)["open"] = functools.partial(open, encoding=ENCODING, errors=ERRORS)

_DEFINE: dict[type, Any] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


class _Path(flags.ArgumentParser):
    """A path whose `~` stands for the home folder, as a shell has it where no = stands before."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)


def define_path(
    name: str,
    default: str | None,
    explanation: str,
    flag_values: flags.FlagValues = flags.FLAGS,
    **options: Any,
) -> None:
    """Defines --name, the path of a file or folder; options: as `flags.DEFINE` takes them."""
    flags.DEFINE(
        _Path(), name, default, explanation, flag_values, flags.ArgumentSerializer(), **options
    )


def define_of_run(
    config_class: type, names: Collection[str], flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines those fields of a dataclass for a command that reads a run folder.

    They say where the files of the run are now, and what no run folder has a say in; see
    `of_run`.
    """
    for name, field, explanation in settings.explanations(config_class):
        if name in names and field.metadata["from_run"]:
            text = f"{explanation}; by default where it was in the run"
            define_path(name, None, text, flag_values)
        elif name in names:
            _define_one(config_class, name, name, explanation, flag_values)


def of_run(names: Iterable[str], flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """The values of these flags that say anything, by their names."""
    values = {name: flag_values[name].value for name in names}
    return {name: value for name, value in values.items() if value not in (None, False)}


def define_mirrored_codes(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines --mirrored_codes for a command that loads the encoder of a run."""
    flags.DEFINE_bool(
        "mirrored_codes",
        None,
        "codes of an image and its mirror image, in twice the time; by default as the run was "
        "trained",
        flag_values=flag_values,
    )


def mirrored_codes(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """What `finished.load` is told by that flag: nothing where the user says nothing."""
    value = flag_values["mirrored_codes"].value
    return {} if value is None else {"mirrored_codes": value}


def define(
    config_class: type, prefix: str = "", flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines --PREFIXname for each field of a dataclass, with the field's default and help.

    A field is made by `settings.setting` and is a bool, int, float or str, one of these or None, or
    a tuple of one of them, which is given as a list with commas. A field that dataclasses share
    by inheriting it has one flag.
    """
    for name, _, explanation in settings.explanations(config_class):
        flag = prefix + name
        if flag in flag_values and flag_values[flag].help == explanation:
            continue
        _define_one(config_class, name, flag, explanation, flag_values)


def _define_one(
    config_class: type, name: str, flag: str, explanation: str, flag_values: flags.FlagValues
) -> None:
    kind, _ = settings.kind_of(config_class, name)
    default: Any = settings.fields_of(config_class)[name].default
    if kind is tuple:
        items_of_default = [str(item) for item in default]
        flags.DEFINE_list(flag, items_of_default, explanation, flag_values=flag_values)
    else:
        _DEFINE[kind](flag, default, explanation, flag_values=flag_values)


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


_NEVER_FROM_A_FILE = "allow_pickle_weights"  # lets the code of another run


def check_own(arguments: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """UserError where a flagfile among the arguments, not one itself, lets code run.

    flag_values: of all of the arguments, parsed.
    """
    name = _NEVER_FROM_A_FILE
    if name not in flag_values or not flag_values[name].value:
        return
    alone = flags.FlagValues()
    flags.DEFINE_bool(name, False, "", flag_values=alone)
    alone(["", *(a for a in arguments if re.match(f"--?(no)?{name}(=|$)", a))])
    if not alone[name].value:
        raise UserError(
            f"--{name}: stands in a flagfile; allowed: on the command line alone, for who starts "
            "the command decides whose code may run"
        )


def in_flags(message: str, names: Collection[str] | flags.FlagValues, method: str | None) -> str:
    """A message of the library, whose settings stand in backticks, in the names of flags.

    names: of all flags; method: that of --method, if there is one. `margin_sr` becomes
    --ssgah.margin_sr where the method is ssgah, and `steps` --steps. What a method has of its own
    goes before what others have: `batch_size` is --rbm.batch_size where the method is rbm.
    """

    def flag(match: re.Match) -> str:
        own = f"{method}.{match[1]}"
        return f"--{own if own in names else match[1]}"

    return re.sub(r"`([a-z][a-z0-9_]*)`", flag, message)
