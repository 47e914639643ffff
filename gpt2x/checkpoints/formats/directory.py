"""Directories of Hugging Face: one file of weights, or several and an index."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.formats.files import read_file
from gpt2x.checkpoints.locate import weight_files
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.visible import visible


class Directory:
    """Directories with a file of weights under one of Hugging Face's names, or with its index and shards."""

    name = "Hugging Face directory"

    def matches(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path) -> Contents:
        return read_files(weight_files(path))


def read_files(files: Iterable[Path]) -> Contents:
    """The contents of one file or of several shards together. Raises UserError where two have the same tensor."""
    first, *others = files
    whole = read_file(first)
    for file in others:
        part = read_file(file)
        twice = whole.tensors.keys() & part.tensors.keys()
        if twice:
            raise UserError(f"{shown(file)}: {visible(min(twice))[:80]} is in another shard, too")
        whole = replace(
            whole,
            tensors=whole.tensors | part.tensors,
            steps={**whole.steps, **part.steps},
            dtypes={**whole.dtypes, **part.dtypes},
        )
    return whole
