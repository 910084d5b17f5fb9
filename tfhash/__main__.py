"""Lists the commands: `python -m tfhash`."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

# In the order in which a user needs them.
COMMANDS = (
    "prepare_nus_wide",
    "train",
    "deploy_training",
    "evaluate",
    "benchmark",
    "report",
    "top_results",
    "export",
    "serving.server",
    "serving.encode",
    "serving.bulk",
    "serving.deploy",
    "search",
)


def main(arguments: list[str]) -> int:
    unknown = [argument for argument in arguments if argument not in ("-h", "--help")]
    if unknown:
        print(
            f"tfhash: error: unexpected argument {unknown[0]!r}; python -m tfhash lists the "
            "commands, such as python -m tfhash.train",
            file=sys.stderr,
        )
        return 2
    purposes = {name: text for name in COMMANDS if (text := purpose(name)) is not None}
    width = max(map(len, purposes))
    for name, text in purposes.items():
        print(f"python -m tfhash.{name:<{width}}  {text}")
    print("Each tells its flags where --help follows.")
    return 0


def purpose(name: str) -> str | None:
    """The first line of a command's docstring, without an import; None where it is not installed.

    Without the command line that stands at its end.
    """
    path = source(f"tfhash.{name}")
    if path is None:
        return None
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    text = docstring.split("\n")[0].split(": `python -m")[0].rstrip(".")
    return text[:1].lower() + text[1:]


def source(module: str) -> Path | None:
    """The file that `python -m module` runs; only the package around the module is imported."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if spec.submodule_search_locations is not None:
        path = path.with_name("__main__.py")
    return path if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
