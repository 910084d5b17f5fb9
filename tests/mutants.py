"""Puts faults into the sources, one at a time, and says which of them the tests notice.

python tests/mutants.py [--count=100] [--seed=0] [--only=tfhash/training]     (make mutants)

The faults are those of cosmic-ray: a comparison turned, a number off by one, `not` before a
condition, and so on, at places drawn at random. The tests of a module run first, those of the rest
of the house where these notice nothing. Works in copies of the tree; the sources stay as they are.
A fault that changes nothing that anyone can observe is written into tests/equivalent_mutants.txt by
hand, and counts for neither side.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db

REPOSITORY = Path(__file__).parents[1]
MUTATED = ("tfhash/evaluation", "tfhash/hashers", "tfhash/methods", "tfhash/training")
EQUIVALENT = REPOSITORY / "tests" / "equivalent_mutants.txt"
# One fault of each kind at a place; all of cosmic-ray's would be mostly arithmetic.
KINDS = {
    "AddNot", "NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue", "ZeroIterationForLoop", "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_Invert",
    "ReplaceBinaryOperator_Add_Sub", "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_Div", "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_FloorDiv_Mul", "ReplaceBinaryOperator_Pow_Mul",
    "ReplaceComparisonOperator_Eq_NotEq", "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_LtE_Lt", "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_Is_IsNot", "ReplaceComparisonOperator_IsNot_Is",
}  # fmt: skip
COPIED = ("tfhash", "tests", "configs", "examples")  # of the tree, for a fault to stand in
# Beyond the tests of a module and of its folder: what else uses a room, by the start of a path.
FAR = {
    "tfhash/hashers": (
        "tests/methods/test_conformance.py",
        "tests/methods/ssgah",
        "tests/methods/test_itq.py",
        "tests/methods/test_ksh.py",
    ),
    "tfhash/methods": (
        "tests/methods/test_defaults.py",
        "tests/methods/test_first_weights.py",
        "tests/methods/test_conformance.py",
    ),
    "tfhash/training": (
        "tests/hashers/test_gan.py",
        "tests/methods/ssgah",
        "tests/integration/test_resume.py",
    ),
}
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header")


class Mutant:
    """One fault: where it stands, and the source with it."""

    def __init__(self, path: str, operator: str, occurrence: int, line: int):
        self.path, self.operator, self.occurrence, self.line = path, operator, occurrence, line
        self.before = (REPOSITORY / path).read_text(encoding="utf-8")
        mutate = get_operator(f"core/{operator}")()
        self.after = mutate_code(self.before.encode(), mutate, occurrence) or self.before

    @property
    def change(self) -> str:
        """The lines that differ, as one line: what tests/equivalent_mutants.txt holds."""
        pairs = zip(self.before.splitlines(), self.after.splitlines(), strict=False)
        changed = [(a.strip(), b.strip()) for a, b in pairs if a != b]
        return f"{self.path}: " + "; ".join(f"{a} -> {b}" for a, b in changed[:2])


def places(only: str | None) -> dict[tuple, list[Mutant]]:
    """All faults by the place where they stand."""
    paths = [p for folder in MUTATED for p in sorted((REPOSITORY / folder).rglob("*.py"))]
    paths = [p for p in paths if only is None or p.relative_to(REPOSITORY).is_relative_to(only)]
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with use_db(str(Path(folder, "session")), WorkDB.Mode.create) as database:
            init(paths, database, {})
            for item in database.work_items:
                (mutation,) = item.mutations
                path = Path(mutation.module_path).relative_to(REPOSITORY).as_posix()
                place = path, mutation.start_pos
                kind = mutation.operator_name.removeprefix("core/")
                if kind not in KINDS:
                    continue
                found[place].append((path, kind, mutation.occurrence, mutation.start_pos[0]))
    return found


def near(path: str) -> list[str]:
    """The tests of a module: those of its name, then those of its folder; of a method, its own."""
    mirrored = Path("tests", *Path(path).parts[1:])
    own = mirrored.with_name(f"test_{mirrored.name}")
    if path.startswith("tfhash/hashers/base"):
        return ["tests/methods/test_conformance.py"]
    chosen = [own] if (REPOSITORY / own).is_file() else []
    if mirrored.parent != Path("tests", "methods"):
        chosen.append(mirrored.parent)
    return [str(path) for path in chosen if (REPOSITORY / path).exists()]


def far(path: str) -> tuple[str, ...]:
    """The tests of what uses a module."""
    return next((tests for start, tests in FAR.items() if path.startswith(start)), ())


def ran(tests: Sequence[str], tree: Path) -> int:
    """The exit status of these tests in a copy of the tree; 1 where they never end."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            [*PYTEST, *tests], cwd=tree, env=environment, capture_output=True, timeout=1800
        ).returncode
    except subprocess.TimeoutExpired:
        return 1


def noticed(mutant: Mutant, tree: Path) -> bool:
    """Whether a test fails with the fault in a copy of the tree."""
    target = tree / mutant.path
    target.write_text(mutant.after, encoding="utf-8")
    own = near(mutant.path)
    try:
        return any(
            ran(tests, tree) not in (0, 5)  # 5: no test was found
            for tests in (own[:1], own[1:], far(mutant.path))
            if tests
        )
    finally:
        target.write_text(mutant.before, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="how many faults")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of faults")
    parser.add_argument("--workers", type=int, default=2, help="faults at a time")
    parser.add_argument("--only", help="a folder or file, e.g. tfhash/training")
    options = parser.parse_args()
    equivalent = set(EQUIVALENT.read_text(encoding="utf-8").splitlines())
    rng = random.Random(options.seed)
    at_places = places(options.only)
    chosen = [
        Mutant(*rng.choice(at_places[place]))
        for place in rng.sample(sorted(at_places), min(options.count, len(at_places)))
    ]
    tested = [m for m in chosen if m.after != m.before and m.change not in equivalent]
    with tempfile.TemporaryDirectory() as folder:
        trees: Queue[Path] = Queue()
        for number in range(options.workers):
            tree = Path(folder, str(number))
            for part in COPIED:
                shutil.copytree(REPOSITORY / part, tree / part)
            shutil.copy(REPOSITORY / "setup.cfg", tree)
            trees.put(tree)

        used = {test for m in tested for test in (*near(m.path), *far(m.path))}
        failing = ran(["-n", str(options.workers), "--dist=loadfile", *sorted(used)], tree)
        if failing not in (0, 5):
            sys.exit("mutants: the tests fail as it is, so they would notice everything")

        def work(mutant: Mutant) -> bool:
            tree = trees.get()
            try:
                found = noticed(mutant, tree)
            finally:
                trees.put(tree)
            print(f"{'killed  ' if found else 'SURVIVED'} line {mutant.line} {mutant.change}")
            sys.stdout.flush()
            return found

        with ThreadPoolExecutor(options.workers) as threads:
            results = list(threads.map(work, tested))
    report(tested, results, len(chosen) - len(tested))


def report(tested: list[Mutant], results: list[bool], equivalent: int) -> None:
    """The share of faults that were noticed, by folder and in all."""
    total, killed = Counter(), Counter()
    for mutant, found in zip(tested, results, strict=True):
        folder = "/".join(mutant.path.split("/")[:2])
        total[folder] += 1
        killed[folder] += found
    for folder in sorted(total):
        print(f"{folder:<20} {killed[folder]:>4} of {total[folder]:>4} noticed")
    everything = sum(total.values())
    share = sum(killed.values()) / max(everything, 1)
    print(f"{'all':<20} {sum(killed.values()):>4} of {everything:>4} noticed, {share:.1%}")
    print(f"{equivalent} more change nothing (tests/equivalent_mutants.txt)")


if __name__ == "__main__":
    main()
