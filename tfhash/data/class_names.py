"""What the names of classes make doubtful, told before anything is learned from a wrong guess."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfhash import names

_UNLABELLED = ("unlabelled", "unlabeled")
_PART = re.compile(  # train, Val, test_set, train2017, validation-images
    r"(train|training|trn|val|valid|validation|dev|test|testing|tst|eval)"
    r"[\s_-]*(set|split|data|images?)?[\s_-]*\d*"
)


def is_unlabelled(name: str) -> bool:
    """Whether it says that there is no label: in any case, with blanks, hyphens, underscores."""
    return re.sub(r"[\s_-]", "", name).lower() in _UNLABELLED


def is_part(name: str) -> bool:
    """Whether it seems to name a part of a data set, such as `train`, and no class."""
    return _PART.fullmatch(name.strip().lower()) is not None


def notes(class_names: Sequence[str]) -> list[str]:
    """A sentence each on names that are one to a reader, and on such as say that there is none."""
    found = []
    alike: dict[str, list[str]] = {}
    for name in class_names:
        alike.setdefault(names.normal(name).casefold(), []).append(name)
    for twins in alike.values():
        if len(twins) > 1:
            found.append(
                f"{', '.join(twins)} differ in case or composition alone, yet are classes of their"
                " own"
            )
    if bare := [name for name in class_names if is_unlabelled(name)]:
        found.append(f"{', '.join(bare)} is a class here; an image without a label has none")
    return found


def note_on_parts(class_names: Sequence[str]) -> list[str]:
    """A sentence on classes where two or more seem to be parts of a data set."""
    parts = [name for name in class_names if is_part(name)]
    if len(parts) < 2:
        return []
    return [
        f"{', '.join(parts)} are taken for classes; if they are parts of a data set with the"
        " classes inside, give one of them as `data_dir`, or put the images of a class into one"
        " folder: queries are picked by the split"
    ]
