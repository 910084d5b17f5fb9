"""The cells of a matrix: methods x axes x code lengths x seeds, each one tfhash.train command."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tfhash import methods, train
from tfhash.benchmark import tuning
from tfhash.benchmark.tuning import Trial
from tfhash.errors import UserError
from tfhash.runs import folder
from tfhash.runs.configurations import Configurations
from tfhash.runs.experiment_settings import Experiment
from tfhash.settings import fields_of


@dataclass(frozen=True)
class Cell:
    """One training: a command line of tfhash.train that anyone can repeat alone.

    row: names what the cell shares with those of other code lengths and seeds.
    """

    row: str
    name: str
    directory: Path
    arguments: tuple[str, ...]
    given: Configurations

    @property
    def command(self) -> str:
        return train.command_line(self.arguments)

    @property
    def images(self) -> Hashable:
        """What decides which images are loaded, as `experiment.load_images` has it."""
        return tuple(self.given.experiment.loading.items())

    @property
    def claimed(self) -> frozenset[str]:
        """Folders that one process at a time may fill: those of first stages which are kept."""
        folders = (getattr(self.given.config, f"stage{n}_dir", None) for n in (0, 1))
        return frozenset(folder for folder in folders if folder)

    def finished(self) -> dict[str, Any] | None:
        """The metrics.json that this cell's flags led to; None where it is still to be made."""
        try:
            _, metrics = folder.read(self.directory)
        except UserError:
            return None
        found = Configurations.of(metrics["flags"])  # as they were given, not as they are read
        return metrics if found.deciding == self.given.deciding else None


class Entry(NamedTuple):
    """One of --methods: what to call it, the argument that asks for it, and its method."""

    label: str
    argument: str
    method: str


def cells(
    entries: Sequence[str],
    code_lengths: Sequence[int],
    seeds: Sequence[int],
    axes: Mapping[str, Sequence[str]],
    common: Mapping[str, str],
    out: Path,
) -> list[Cell]:
    """All cells of a matrix, those that share images and split next to each other.

    entries: names of methods or paths of flagfiles. axes: the values of further flags. common: the
    arguments of all cells, by their flags. An axis or a common flag is for those methods that know
    it. UserError, before anything is trained, where one cell's command would end in one.
    """
    known = _known(entries, (*axes, *common))
    if both := sorted(axes.keys() & common.keys()):
        raise UserError(f"--{both[0]}: given for all cells and in --vary; allowed: one of them")
    result = []
    for seed, (entry, of_method) in itertools.product(seeds, known.items()):
        own = {flag: values for flag, values in axes.items() if flag in of_method}
        shared = _shared(common, of_method)
        for values in itertools.product(*own.values()):
            for code_length in code_lengths:
                axis = dict(zip(own, values, strict=True))
                # Quoted: any value can stand in the name of a folder, and no two become one.
                tag = [f"{flag}-{quote(value, safe='')}" for flag, value in axis.items()]
                row = " ".join([entry.label, *(f"{flag}={value}" for flag, value in axis.items())])
                result.append(_cell(entry, shared, axis, code_length, seed, out, row, tag))
    return _together(result)


def tried_cells(
    entries: Sequence[str],
    code_lengths: Sequence[int],
    seeds: Sequence[int],
    count: int,
    space: tuning.Space,
    common: Mapping[str, str],
    out: Path,
) -> tuple[list[Cell], dict[Entry, list[Trial]]]:
    """The cells of `count` trials of each entry, and the trials; arguments as for `cells`.

    space: values to draw from in place of those that the methods have, by flag. What is given for
    all cells is not drawn.
    """
    known = _known(entries, (*space, *common))
    if both := sorted(space.keys() & common.keys()):
        raise UserError(f"--{both[0]}: given for all cells and in --search; allowed: one of them")
    attempts = {}
    for entry, of_method in known.items():
        given = train.parse([entry.argument, *_shared(common, of_method)]).values
        of_entry = tuning.space_of(entry.method, {**space, **dict.fromkeys(common, ())})
        attempts[entry] = tuning.trials(entry.label, of_entry, count, given)
    result = [
        _cell(
            entry,
            _shared(common, of_method),
            trial.flags,
            code_length,
            seed,
            out,
            trial.row,
            [f"trial{trial.number}"],
        )
        for seed, (entry, of_method) in itertools.product(seeds, known.items())
        for trial in attempts[entry]
        for code_length in code_lengths
    ]
    return _together(result), attempts


def _known(entries: Sequence[str], used: Iterable[str]) -> dict[Entry, set[str]]:
    """The entries with the flags that each knows; UserError for a used flag that none does."""
    known = {entry: flags_of(entry.method) for entry in _entries(entries)}
    for flag in used:
        if not any(flag in of_method for of_method in known.values()):
            of = ", ".join(dict.fromkeys(entry.method for entry in known))
            raise UserError(f"--{flag}: no flag of {of}; allowed: a flag of one of the methods")
    return known


def _shared(common: Mapping[str, str], of_method: set[str]) -> list[str]:
    return [argument for flag, argument in common.items() if flag in of_method]


def flags_of(method: str) -> set[str]:
    """The flags that a method knows: those of experiments, of its kind, and its own."""
    hasher = methods.get(method)
    own = {f"{method}.{name}" for name in fields_of(hasher.Config)}
    return set(fields_of(Experiment)) | set(fields_of(hasher.Settings)) | own


def _entries(names: Iterable[str]) -> list[Entry]:
    entries = [_entry(name) for name in names]
    labels = [entry.label for entry in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(
                f"--methods: {label!r} names {labels.count(label)} of them, and so their folders; "
                "allowed: methods and flagfiles of different names"
            )
    return entries


def _entry(name: str) -> Entry:
    if name in methods.names():
        return Entry(name, f"--method={name}", name)
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"--methods: {name!r}; allowed: {', '.join(methods.names())}, or a flagfile that exists"
        )
    argument = f"--flagfile={name}"
    try:
        return Entry(path.stem, argument, train.parse([argument]).experiment.method)
    except UserError as error:
        raise UserError(f"--methods: {name}: {error}") from None


def _cell(
    entry: Entry,
    shared: Sequence[str],
    axis: Mapping[str, str],
    code_length: int,
    seed: int,
    out: Path,
    row: str,
    tag: Sequence[str],
) -> Cell:
    name = "_".join([entry.label, str(code_length), *tag, f"seed{seed}"])
    directory = out / name
    arguments = (
        entry.argument,
        *(argument.replace("{seed}", str(seed)) for argument in shared),
        *(f"--{flag}={value}" for flag, value in axis.items()),
        f"--code_length={code_length}",
        f"--seed={seed}",
        f"--model_dir={directory}",
    )
    try:
        given = train.parse(arguments)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return Cell(row, name, directory, arguments, given)


def _together(cells: Sequence[Cell]) -> list[Cell]:
    """Sorted by images, then by split; each of these stands where it first stood."""

    def split(cell: Cell) -> Hashable:
        config = cell.given.experiment
        seed = config.seed if config.split_seed is None else config.split_seed
        return config.protocol, seed, config.queries_per_class, config.labelled_per_class

    images = list(dict.fromkeys(cell.images for cell in cells))
    splits = list(dict.fromkeys(split(cell) for cell in cells))
    return sorted(cells, key=lambda c: (images.index(c.images), splits.index(split(c))))
