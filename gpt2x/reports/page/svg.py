"""Figures of matplotlib as SVG elements that stand in an HTML page."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from gpt2x.reports.page.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""The colours of Okabe and Ito, which the colour-blind can tell apart, without black and yellow; and grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One per colour, so that lines can be told apart in black and white too."""

_INK = "#000000"  # matplotlib's colour for text and axes; in the page it is the colour of the text around it
_SETTINGS: Any = {  # of many types, which matplotlib names one by one
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings while figures of a page are made and written. They apply to no other figure."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has fonts for letters that matplotlib lacks
        yield


def svg_of(draw: Callable[[], "Figure"], name: str, title: str) -> Markup:
    """The figure that `draw` makes, as an element without a size of its own: the page's style sets its width.

    `name` must be another one for each figure of a page, as it becomes part of the ids in it. The same figure gives
    the same bytes every time. The title is for readers who cannot see the picture.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    with style(), mpl.rc_context({"svg.hashsalt": name}):
        draw().savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", stream.getvalue(), flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', text))
    box = re.findall(r'viewBox="([^"]*)"', text)[0]
    start = f'<svg viewBox="{box}" role="img" aria-label="{escape(printable(title))}">'
    body = text[text.index(">", text.index("<svg")) + 1 :]
    # Labels are not touched: in them, < and > are escaped.
    return Markup(start + printable(re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], name, used), body)))


def _tag(tag: str, name: str, used: set[str]) -> str:
    """A tag with the ids of this figure, where they are used, and with the ink of the page."""
    tag = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", tag)
    tag = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', tag)
    return tag.replace("url(#", f"url(#{name}-").replace("xlink:href", "href").replace(_INK, "currentColor")
