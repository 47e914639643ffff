"""The table of generated texts: a part of them, cut to a length that a page can hold."""

from collections.abc import Iterator
from dataclasses import dataclass

from gpt2x.decoding.rows import GenerationRow
from gpt2x.reports.page.study import Group, Result, label, value_of
from gpt2x.runs.collect import short_names

MOST_TEXTS = 5000
_MOST_CHARACTERS = 4_000_000  # of all texts together: in any script, the page stays below 20 MB
_PROMPT, _COMPLETION = 300, 3000  # characters of one prompt and of one completion


@dataclass(frozen=True)
class ShownText:
    """One row of the table."""

    settings: list[str]
    sample: str
    prompt: str
    completion: str
    logprob: str
    """Mean per new token; empty if there is none."""
    new_tokens: int
    end: str


@dataclass(frozen=True)
class Texts:
    """The table."""

    settings: list[str]
    """Names of the swept settings, one column each. A swept prompt is in the text already."""
    rows: list[ShownText]
    total: int


def texts_of(group: Group) -> Texts:
    """The texts of all runs that are done; where they are too many, the first ones of every run alike."""
    keys = [key for key in group.swept if key != "prompt"]
    names = short_names(group.swept)
    found = [(place, result, row) for result in group.results for place, row in enumerate(result.rows)]
    order = sorted(range(len(found)), key=lambda i: found[i][0])  # stable: the first row of each run, then the second
    kept = sorted(_fitting((i, found[i][2]) for i in order[:MOST_TEXTS]))
    rows = [_shown(found[i][1], found[i][2], keys) for i in kept]
    return Texts([names[key] for key in keys], rows, len(found))


def _fitting(rows: Iterator[tuple[int, GenerationRow]]) -> Iterator[int]:
    """The numbers of the rows until their characters are too many."""
    left = _MOST_CHARACTERS
    for i, row in rows:
        left -= min(len(row.prompt), _PROMPT) + min(len(row.completion), _COMPLETION)
        if left < 0:
            return
        yield i


def _shown(result: Result, row: GenerationRow, keys: list[str]) -> ShownText:
    return ShownText(
        [label(value_of(result.run.job, key)) for key in keys],
        str(row.sample),
        _cut(row.prompt, _PROMPT),
        _cut(row.completion, _COMPLETION),
        f"{row.logprob / row.n_new_tokens:.3f}" if row.n_new_tokens else "",
        row.n_new_tokens,
        row.finish_reason,
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"
