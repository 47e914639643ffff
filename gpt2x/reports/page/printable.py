"""Text of unknown origin, as it may stand in a page."""

from gpt2x.paths import is_utf8
from gpt2x.visible import visible


def printable(text: str) -> str:
    """The text with visible control characters; bytes that were not UTF-8 become codes such as `\\udcff`."""
    return visible(text if is_utf8(text) else text.encode("utf-8", "backslashreplace").decode())
