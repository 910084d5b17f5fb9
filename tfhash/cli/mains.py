"""What every command shares: one clear line and exit status 2 for a mistake of the user."""

from __future__ import annotations

import codecs
import contextlib
import importlib.util
import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from absl import app, flags

from tfhash.cli import pages
from tfhash.cli.flags import check_own, in_flags
from tfhash.errors import NO_ROOM, UserError
from tfhash.names import shown

_ESCAPES = "tfhash.escapes"  # the name of a handler of encoding errors
_HELP = ("--help", "-help", "-h", "-?", "--helpshort", "--helpfull")


def run(
    name: str,
    main: Callable[[list[str]], int | None],
    help_page: Callable[[str, str], str] | None = None,
    *,
    positional: bool = False,
    passes_on: bool = False,
) -> None:
    """Parses the flags, runs main and exits; the body of a command's `entry_point`.

    name: the command as the user types it, such as `tfhash.export`; opens the error line.
    main: takes argv without the flags; what it returns is the exit status (None is 0). help_page:
    answers what --help prints, from name and the docstring of main's module; by default these and
    every flag of the command. positional: whether arguments that are no flags are allowed, which
    are paths then. passes_on: whether flags that the command does not know stay in argv, for what
    it calls.

    A flag that cannot be parsed, an argument that is not allowed, and a UserError from main print
    `name: error: ...` on stderr and exit with status 2, or that of the error; a disk that is full
    or read-only does so with status 1. Any other exception is a bug and keeps its traceback.
    """

    def parse(argv: list[str]) -> list[str]:
        wanted = [argument for argument in argv[1:] if argument in _HELP]
        try:
            rest = flags.FLAGS(
                [argument for argument in argv if argument not in _HELP], known_only=passes_on
            )
            check_own(argv[1:])
        except UserError as error:
            _exit(name, error)
        except flags.Error as error:
            if not wanted:
                _exit(name, _said_plainly(str(error)))
            flags.FLAGS.mark_as_parsed()  # without a flag that is required, help is of more use
        if wanted:
            words = sys.modules[main.__module__].__doc__ or ""
            try:
                print((help_page or pages.of_command)(name, words))
            except UserError as error:
                _exit(name, error)
            sys.exit(0)
        for argument in [] if positional else rest[1:]:
            if not (passes_on and argument.startswith("--")):
                form = "--flag=value" if passes_on else "--flag"
                _exit(name, f"unexpected argument {argument!r}; every option is a {form}")
        return [*rest[:1], *map(os.path.expanduser, rest[1:])]

    def guarded_main(argv: list[str]) -> int | None:
        try:
            return main(argv)
        except UserError as error:
            _exit(name, error, error.status)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            where = error.filename or "the disk is full or may not be written"
            print_error(name, f"{error.strerror}: {where}; what was written before is kept")
            return 1

    print_anything()
    with _a_reader_may_leave():
        app.run(guarded_main, flags_parser=parse)


@contextlib.contextmanager
def _a_reader_may_leave() -> Iterator[None]:
    """Who reads a part, as `| head` does, closes the pipe: then the command ends without a word."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, for at exit Python would complain
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if not any(event & select.POLLERR for _, event in poll.poll(0)):
            raise  # of another pipe, or a connection
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def print_anything() -> None:
    """From now on, what stdout and stderr cannot encode is printed as an escape and ends nothing.

    That is most names where they are ASCII, and a name that is no UTF-8 everywhere.
    """
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a test or a notebook puts there takes all
            stream.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    part = shown(error.object[error.start : error.end])
    return part.encode("ascii", "backslashreplace").decode("ascii"), error.end


def _said_plainly(message: str) -> str:
    """A message of absl, but of required flags that are missing in our words."""
    missing = re.findall(
        r"flag --(\w+)=None: Flag --\w+ must have a value other than None", message
    )
    return f"missing: {', '.join(f'--{flag}' for flag in missing)}" if missing else message


def require(name: str, extra: str, *packages: str) -> None:
    """Ends the command in one line where packages of an extra are not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        _exit(name, f"not installed: {', '.join(missing)}; the extra {extra} of tfhash brings it")


def print_table(metrics: Mapping[str, Any]) -> None:
    """Prints the figures of a metrics.json that a user looks for first, a line each."""
    rows = [("mAP", metrics["map"])] if metrics["map"] is not None else []
    rows += _at_depths(metrics, "map_at", "mAP@")
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
    rows += [("weighted mAP", metrics["weighted_map"])] if "weighted_map" in metrics else []
    rows += _at_depths(metrics, "weighted_map_at", "weighted mAP@")
    rows += _at_depths(metrics, "ndcg_at", "NDCG@") + _at_depths(metrics, "acg_at", "ACG@")
    print(
        f"{metrics['method']}, {metrics['code_length']} bits, {shown(metrics['dataset'])} "
        f"{metrics['protocol']}, split {metrics['split_fingerprint']}: {metrics['query_count']:,} "
        f"queries, {metrics['database_size']:,} in the database, ties {metrics['ties']}"
    )
    if metrics.get("proxy"):
        print(f"  {shown(metrics['dataset'])} is {shown(metrics['proxy'])}")
    for name, value in rows:
        print(f"  {name:<28}{value:.4f}")


def _at_depths(metrics: Mapping[str, Any], key: str, name: str) -> list[tuple[str, float]]:
    return [(name + k[len(key) :], v) for k, v in metrics.items() if k.startswith(key)]


def print_error(name: str, message: object) -> None:
    """Prints `name: error: message` on stderr, as one line whatever the message."""
    known = flags.FLAGS
    method = known["method"].value if "method" in known else None
    one_line = " ".join(in_flags(str(message), known, method).split())
    print(f"{name}: error: {shown(one_line)}", file=sys.stderr)


def _exit(name: str, message: object, status: int = UserError.status) -> NoReturn:
    print_error(name, message)
    sys.exit(status)
