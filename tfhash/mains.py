"""What every command shares: one clear line and exit status 2 for a mistake of the user."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags

from tfhash.errors import UserError

_USER_ERROR_STATUS = 2


def run(name: str, main: Callable[[list[str]], int | None]) -> None:
    """Parses the flags, runs main and exits; the body of a command's `entry_point`.

    name: the command as the user types it, such as `tfhash.export`; opens the error line.
    main: takes argv without the flags; what it returns is the exit status (None is 0).
    A flag that cannot be parsed, an argument that is no flag, and a UserError from main print
    `name: error: ...` on stderr and exit with status 2. Any other exception is a bug and keeps
    its traceback.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except flags.Error as error:
            _exit(name, error)
        if rest[1:]:
            _exit(name, f"unexpected argument {rest[1]!r}; every option is a --flag")
        return rest

    def guarded_main(argv: list[str]) -> int | None:
        try:
            return main(argv)
        except UserError as error:
            _exit(name, error)

    app.run(guarded_main, flags_parser=parse)


def require(name: str, extra: str, *packages: str) -> None:
    """Ends the command in one line where packages of an extra are not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        _exit(name, f"not installed: {', '.join(missing)}; the extra {extra} of tfhash brings it")


def print_table(metrics: Mapping[str, Any]) -> None:
    """Prints the figures of a metrics.json that a user looks for first, a line each."""
    rows = [("mAP", metrics["map"])] if metrics["map"] is not None else []
    rows += [(f"mAP@{k[6:]}", v) for k, v in metrics.items() if k.startswith("map_at")]
    names = {
        "precision_at100": "precision@100",
        "triplet_accuracy": "triplet accuracy, chance .5",
        "class_accuracy": "class stream, accuracy",
    }
    rows += [(name, metrics[key]) for key, name in names.items() if key in metrics]
    rows += [
        (f"precision within radius {k[16:]}", v)
        for k, v in metrics.items()
        if k.startswith("precision_radius")
    ]
    print(
        f"{metrics['method']}, {metrics['code_length']} bits, {metrics['dataset']} "
        f"{metrics['protocol']}, split {metrics['split_fingerprint']}: {metrics['query_count']:,} "
        f"queries, {metrics['database_size']:,} in the database, ties {metrics['ties']}"
    )
    for name, value in rows:
        print(f"  {name:<28}{value:.4f}")


def print_error(name: str, message: object) -> None:
    """Prints `name: error: message` on stderr, as one line whatever the message."""
    print(f"{name}: error: {' '.join(str(message).split())}", file=sys.stderr)


def _exit(name: str, message: object) -> None:
    print_error(name, message)
    sys.exit(_USER_ERROR_STATUS)
