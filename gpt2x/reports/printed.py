"""What the code of a subject has printed, apart from what gpt2x reports."""

import sys

from gpt2x.visible import visible

_MOST = 20  # lines


def show_printed(text: str) -> None:
    """Prints the last lines to stderr, each of them marked as the subject's."""
    lines = text.splitlines()
    if len(lines) > _MOST:
        print(f"subject: ({len(lines) - _MOST} more lines before these)", file=sys.stderr)
    for line in lines[-_MOST:]:
        print(f"subject: {visible(line)}", file=sys.stderr)
