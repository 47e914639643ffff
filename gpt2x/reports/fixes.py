"""What validate prints of the changes that mend a subject: place, line before and after, and what was verified."""

from itertools import takewhile
from pathlib import Path

from rich.text import Text

from gpt2x.parity.suggesting.patch import Suggestion, Suggestions
from gpt2x.parity.validation import Validation
from gpt2x.paths import shown
from gpt2x.visible import visible

_WIDTH_OF_LINE = 73  # columns, of 80
_MOST_LINES = 4  # of a change


def fixes(v: Validation, suggestions: Suggestions, patch: Path) -> list[Text]:
    """One line per change with its place, then its lines; then what the patch does, which lies at `patch`."""
    lines = [line for each in suggestions.found for line in _change(each)]
    if suggestions.verified:
        folder = suggestions.folder
        where = "" if folder == Path.cwd() else f"-C {shown(folder)} "
        file = shown(patch) if folder == Path.cwd() else patch.resolve()
        lines += [_after(suggestions.after), Text(f"     git {where}apply {file}")]
    elif suggestions.found:
        lines.append(Text("     not verified: task.suggest=true tries them, and writes a patch", "yellow"))
    elif suggestions.tried and not v.passed:
        lines.append(Text("     no change was found that mends a cause", "yellow"))
    return lines


def _change(each: Suggestion) -> list[Text]:
    state = ("verified", "green") if each.verified else ("not verified", "yellow")
    more = f", and {n - 1} more" if (n := len(each.change)) > 1 else ""
    place = f"fix {each.order}  {shown(each.file.path)}:{each.lines.number}{more}  "
    before, after = _few(each.lines.before), _few(each.lines.after)
    start = _left_out(before, after)
    return [
        Text.assemble(visible(place), state),
        *(Text(f"     - {_cropped(line, start)}", "red") for line in before),
        *(Text(f"     + {_cropped(line, start)}", "green") for line in after),
    ]


def _few(text: str) -> list[str]:
    lines = [visible(line.strip()) for line in text.splitlines()]
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "..."]


def _left_out(before: list[str], after: list[str]) -> int:
    """The number of characters that are left out at the begin of the lines, so that the first difference is shown."""
    if len(before) != 1 or len(after) != 1 or max(map(len, before + after)) <= _WIDTH_OF_LINE:
        return 0
    same = takewhile(lambda pair: pair[0] == pair[1], zip(before[0], after[0], strict=False))
    return max(0, len(list(same)) - _WIDTH_OF_LINE // 3)


def _cropped(line: str, start: int) -> str:
    line = f"...{line[start + 3 :]}" if start else line
    return line if len(line) <= _WIDTH_OF_LINE else f"{line[: _WIDTH_OF_LINE - 3]}..."


def _after(after: Validation | None) -> Text:
    """What a validation of the changed code says."""
    if after is None:
        return Text("     with them, the code cannot be validated with all stages", "yellow")
    if after.passed:
        return Text("     with them, validate passes; your files are unchanged:")
    n = len(after.causes)
    return Text(f"     with them, {n} {'cause remains' if n == 1 else 'causes remain'}; your files are unchanged:")
