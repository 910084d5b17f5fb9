r"""Names of files, folders and classes as text: shown, compared, as bytes and back.

Inside, a name is the str that Python makes of it: bytes of a file name that are no UTF-8 are
surrogates in it (PEP 383). So it survives `open`, NumPy's str arrays and JSON (which `json.dumps`
writes in ASCII) as it is. Three borders ask for more:

    what people read      shown(name)
    bytes                 encoded(name), decoded(data): CSV, flags.txt, tensors of strings; a text
                          file is opened with encoding=ENCODING, errors=ERRORS
    comparisons           normal(name), finder(names)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

ENCODING, ERRORS = "utf-8", "surrogateescape"

# Control characters (terminal escapes begin with one), ends of lines and paragraphs, overrides of
# the direction of writing, surrogates. What joins or marks letters of a script stays.
_NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def shown(text: object) -> str:
    r"""The text in one line that any terminal, log, figure or page can take.

    A byte that is no UTF-8 is shown as \xff, a control character as \n, \x1b or \u202e; printable
    text of any script stays. What is shown already is not changed.
    """
    return _NOT_SHOWN.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    point = ord(match[0])
    if 0xDC80 <= point <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{point - 0xDC00:02x}"
    if point < 0x80:
        return _SHORT.get(match[0], f"\\x{point:02x}")
    return f"\\u{point:04x}"


def normal(text: str) -> str:
    """The form in which names are compared (NFC).

    é may be one character or two, and file systems, archives and spreadsheets differ in that.
    """
    return unicodedata.normalize("NFC", text)


def finder(present: Iterable[str]) -> Callable[[str], str]:
    """What answers, of a name, which of those that are present it means, and itself where none.

    Itself where it is there, else the one that has its normal form, if that is one alone.
    """
    exact = set(present)
    by_form: dict[str, list[str]] = {}
    for name in exact:
        by_form.setdefault(normal(name), []).append(name)

    def find(name: str) -> str:
        alike = () if name in exact else by_form.get(normal(name), ())
        return alike[0] if len(alike) == 1 else name

    return find


def is_text(name: str) -> bool:
    """Whether its bytes are UTF-8."""
    return _SURROGATE.search(name) is None


def encoded(text: str) -> bytes:
    """The bytes of a name, for a file or a tensor of strings; `decoded` undoes it.

    UnicodeEncodeError for surrogates that stand for no byte, which no file name has.
    """
    return text.encode(ENCODING, ERRORS)


def decoded(data: bytes) -> str:
    """The name of which these are the bytes, whatever bytes they are."""
    return data.decode(ENCODING, ERRORS)
