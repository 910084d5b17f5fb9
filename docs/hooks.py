"""What `mkdocs build` does besides: packages under their names, and links to files beside docs/.

Pages link to files of the repository that are no pages (../results.md), which is right where the
repository is browsed. The site has no such files: there only the words of the link stay, and a link
to a file that is not in the repository is a warning, with which a strict build fails.
"""

from __future__ import annotations

import logging
import pkgutil
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
API = REPOSITORY / "build" / "api"
METHODS = "<!-- docs/hooks.py lists the modules of tfhash/methods here. -->"
# A link that leads upwards: its words, its path and perhaps its anchor.
UPWARDS = re.compile(r"(?<!!)\[([^\]]+)\]\(\s*(\.\./[^)#\s]*)(#[^)\s]*)?\s*\)")

log = logging.getLogger("mkdocs.hooks.tfhash")


def on_startup(**_: Any) -> None:
    """Copies the sources so that export/ and serving/ are tfhash.export and tfhash.serving."""
    shutil.rmtree(API, ignore_errors=True)
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "tfhash", API / "tfhash", ignore=hidden)
    for folder in ("export", "serving"):
        shutil.copytree(REPOSITORY / folder, API / "tfhash" / folder, ignore=hidden)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text of a page, without links out of docs/, and all methods where it asks for them."""
    text = without_links_out(markdown, page.file.src_uri)
    return text.replace(METHODS, "\n\n".join(f"::: tfhash.methods.{name}" for name in methods()))


def methods() -> list[str]:
    """The modules of tfhash/methods, sorted."""
    modules = pkgutil.iter_modules([str(REPOSITORY / "tfhash" / "methods")])
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def without_links_out(markdown: str, source: str) -> str:
    """The text of the page docs/SOURCE, in which links out of docs/ are their words alone."""

    def replaced(match: re.Match[str]) -> str:
        words, target, _ = match.groups()
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), target))
        if path.startswith("docs/"):
            return match[0]
        if not (REPOSITORY / path).exists():
            log.warning("docs/%s: no file of the repository at the link to %s", source, target)
        return words

    return UPWARDS.sub(replaced, markdown)
