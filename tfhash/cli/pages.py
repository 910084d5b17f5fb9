"""Help pages: what --help prints."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

_WIDTH = 96
_OURS = ("tfhash", "__main__")


def of_command(name: str, words: str) -> str:
    """The command's own words, and every flag that it defines."""
    by_module = flags.FLAGS.flags_by_module_dict()
    own = {
        flag.name
        for module, of_module in by_module.items()
        for flag in of_module
        if module == sys.argv[0] or module.split(".")[0] in _OURS
    }
    return "\n".join([*_opening(name, words), *_flags(sorted(own))])


def of_groups(name: str, words: str, groups: Mapping[str, Iterable[str]]) -> str:
    """The command's own words, and its flags under headings."""
    lines = _opening(name, words)
    for heading, names in groups.items():
        lines += [f"{heading.upper()}", *_flags(names), ""]
    lines += ["--flagfile=FILE takes flags from a file; --verbosity=1 shows TensorFlow's own logs."]
    return "\n".join(lines)


def _opening(name: str, words: str) -> list[str]:
    words = words.strip()
    return [f"python -m {name}", "", *([words, ""] if words else [])]


def _flags(names: Iterable[str]) -> list[str]:
    lines = []
    for name in names:
        flag = flags.FLAGS[name]
        if isinstance(flag, flags.BooleanFlag):
            lines.append(f"  --[no]{name}")
        else:
            lines.append(f"  --{name}={_shown(flag.default)}")
        text = flag.help or ""
        if isinstance(flag, flags.BooleanFlag):
            text += f" (default: {'yes' if flag.default else 'no'})"
        lines += textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def _shown(default: Any) -> str:
    if default is None:
        return ""
    return ",".join(default) if isinstance(default, list) else str(default)
