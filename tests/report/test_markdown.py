"""Texts of users in Markdown, judged by a renderer of CommonMark."""

from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from tfhash.report import markdown

TEXTS = [
    "ssgah efficientnetv2b0 _leading and trailing_ w_ar",
    "*bold* __strong__ ~~gone~~ `code` ``",
    "[click](https://example.com) ![i](x.png) <script>alert(1)</script> &lt;",
    r"a|b \| c\ \\ $5_and_$10 #1",
    "https://example.com www.example.com",
    "caf\udce9 \x1b[31m 犬",
]


def visible(rendered):
    """What a page shows, and whether it has other elements than paragraphs, tables and code."""
    tags = set(re.findall(r"</?(\w+)", rendered))
    return html.unescape(re.sub(r"<[^>]*>", "", rendered)).strip(), tags


def as_shown(text):
    return text.replace("\udce9", r"\xe9").replace("\x1b", r"\x1b")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_seen_as_it_is(text):
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    assert visible(page.render(markdown.plain(text))) == (as_shown(text), {"p"})
    assert visible(page.render(markdown.code(text))) == (as_shown(text), {"p", "code"})
    heading = page.render(f"## {markdown.plain(text)}")
    assert visible(heading) == (as_shown(text), {"h2"})


@pytest.mark.parametrize("text", TEXTS)
def test_a_cell_stays_one_cell(text):
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    rendered = page.render(markdown.table(["a", "b"], [[markdown.plain(text), "|"]], {"a"}))
    cells = [visible(cell)[0] for cell in re.findall(r"<td[^>]*>(.*?)</td>", rendered)]
    assert cells == [as_shown(text), "|"]


def test_what_links_by_itself_elsewhere_is_broken_up():
    """GitHub makes links of bare addresses, and formulas of what stands between dollars."""
    assert markdown.plain("https://a.b www.a.b $x$") == r"https\://a.b www\.a.b \$x\$"


def test_ordinary_names_are_left_alone():
    names = "dsh_gan vgg19 real_0.5, per_class(queries=100, labelled=500) w/ar 48 bits!"
    assert markdown.plain(names) == names
