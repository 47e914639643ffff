"""A page of task=report, read back."""

import re
from html.parser import HTMLParser
from pathlib import Path

from gpt2x.reports.page.html import render
from gpt2x.reports.page.study import read_study


class Page(HTMLParser):
    """The elements of a page, and what stands in its cells, paragraphs, list items and so on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        """Without those inside of a picture."""
        self.names: set[str] = set()
        """Of all elements and attributes."""
        self.cells: list[str] = []
        self._current = ""
        self._in_svg = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._current = tag
        self.names |= {tag, *(name for name, _ in attrs)}
        if not self._in_svg:
            self.tags.append(tag)
        self._in_svg |= tag == "svg"
        if tag in ("td", "th", "p", "li", "dd", "dt", "pre", "a", "h3", "figcaption"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_svg &= tag != "svg"

    def handle_data(self, data: str) -> None:
        if self.cells and self._current not in ("script", "style"):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        """One line per cell, with single spaces."""
        return "\n".join(" ".join(cell.split()) for cell in self.cells)


def page_of(folder: Path) -> Page:
    return Page(render(read_study(folder)))


def rows_of(page: str, number: int) -> list[list[str]]:
    """The cells of the n-th table of numbers below a chart, without tags."""
    table = re.findall(r"<summary>The numbers</summary>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)[number]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)] for row in rows
    ]
