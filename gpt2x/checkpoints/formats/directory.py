"""Directories of Hugging Face: one file of weights, or several and an index."""

from dataclasses import replace
from pathlib import Path

from gpt2x.checkpoints.formats.contents import Contents
from gpt2x.checkpoints.formats.files import read_file
from gpt2x.checkpoints.locate import weight_files
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.visible import visible


class Directory:
    """Directories with model.safetensors or pytorch_model.bin, or with their index and shards."""

    name = "Hugging Face directory"

    def matches(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path) -> Contents:
        whole: Contents | None = None
        for file in weight_files(path):
            part = read_file(file)
            if whole is None:
                whole = part
                continue
            twice = whole.tensors.keys() & part.tensors.keys()
            if twice:
                raise UserError(f"{shown(file)}: {visible(min(twice))[:80]} is in another shard, too")
            whole = replace(
                whole,
                tensors=whole.tensors | part.tensors,
                steps={**whole.steps, **part.steps},
                dtypes={**whole.dtypes, **part.dtypes},
            )
        assert whole is not None  # weight_files lists at least one, or raises
        return whole
