"""The comments of conf/*.yaml: the meaning of each option of a group, and of each setting."""

from itertools import takewhile
from pathlib import Path

import yaml


def headline(file: Path) -> str:
    """The comment at the top of a YAML file, as one line, without `# @package`; '' if there is none."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()  # a folder of the user's may hold any file
    top = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(_text(line) for line in top if not line.startswith("# @package"))


def comments_of(file: Path) -> dict[str, str]:
    """Dotted key of each setting in a YAML file -> its comment, as one line; '' if it has none.

    A comment belongs to the key in its line, or to the key that follows it. One that starts in the same column as a
    comment at the end of the line above continues that comment. The comment at the top of the file is the file's.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    root = yaml.compose("\n".join(lines), Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return {}
    columns = _comment_columns(lines)
    keys = _keys(root)
    first = min(keys, default=0)
    comments = dict.fromkeys(keys.values(), "")
    above: list[str] = []  # comments that wait for the key below them
    previous: tuple[str, int] | None = None  # the key of the comment at the end of a line, and the comment's column
    for number, line in enumerate(lines):
        key, column = keys.get(number), columns.get(number)
        text = [_text(line[column:])] if column is not None else []
        if key is not None:
            comments[key] = " ".join([*filter(None, [comments[key]]), *above, *text])
            above = []
            previous = (key, column) if column is not None else None
        elif column is None or number < first:
            above = []
        elif previous is not None and previous[1] == column:
            comments[previous[0]] += f" {text[0]}"
        elif not line[:column].strip():
            above += text
    return comments


def _text(comment: str) -> str:
    return comment.lstrip("#").strip()


def _keys(node: yaml.MappingNode, prefix: str = "") -> dict[int, str]:
    """Line number -> dotted name of the key in it; for a value with several lines, also the last of them.

    If there are several keys in one line, the first counts.
    """
    found: dict[int, str] = {}
    for key, value in node.value:
        found.setdefault(key.start_mark.line, f"{prefix}{key.value}")
        if isinstance(value, yaml.CollectionNode) and value.flow_style:
            found.setdefault(value.end_mark.line, f"{prefix}{key.value}")
        if isinstance(value, yaml.MappingNode):
            found = _keys(value, f"{prefix}{key.value}.") | found
    return found


def _comment_columns(lines: list[str]) -> dict[int, int]:
    """Line number -> the column where its comment starts. A `#` inside of a value is none."""
    ends: dict[int, int] = {}  # line number -> the column where its last token ends
    inside: set[int] = set()  # lines in which a token does not end: those of a text with several lines
    for token in yaml.scan("\n".join(lines), Loader=yaml.SafeLoader):
        start, end = token.start_mark, token.end_mark
        if isinstance(token, yaml.ScalarToken) and end.line > start.line:
            inside |= set(range(start.line, end.line))
        if end.index > start.index:
            ends[end.line] = max(ends.get(end.line, 0), end.column)
    columns = {}
    for number, line in enumerate(lines):
        place = line.find("#", ends.get(number, 0))
        if place >= 0 and number not in inside:
            columns[number] = place
    return columns
