"""Models whose vocabulary is padded: their tables have more rows than there are tokens, mostly a multiple of 64."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from gpt2x.parity.subject.constructing.constants import set_attribute
from gpt2x.parity.subject.constructing.meanings import Meaning, meaning_of
from gpt2x.parity.subject.constructing.size import is_padded, seen_in


def cut_vocabulary(module: nn.Module, vocab_size: int, width: int) -> str:
    """Cuts the tables of a model to the first `vocab_size` rows, where there are some more; returns what was done.

    Sizes that its code may ask for are changed as well. Empty if the vocabulary is not padded.
    """
    rows = seen_in(module).vocab_size
    if rows is None or not is_padded(rows, vocab_size):
        return ""
    for part in module.modules():
        own = dict(part.named_parameters(recurse=False))
        if any(sorted(parameter.squeeze().shape) == sorted((rows, width)) for parameter in own.values()):
            for parameter in own.values():
                axis = next((axis for axis, size in enumerate(parameter.shape) if size == rows), None)
                if axis is not None:
                    parameter.data = parameter.data.narrow(axis, 0, vocab_size).contiguous()
        _set_sizes(part, ("num_embeddings", "out_features"), rows, vocab_size)
        for owner in (part, *(value for name, value in vars(part).items() if not name.startswith("_"))):
            names = owner if isinstance(owner, dict) else getattr(owner, "__dict__", {})
            known = [name for name in names if isinstance(name, str) and meaning_of(name) is Meaning.VOCABULARY]
            _set_sizes(owner, known, rows, vocab_size)
    return f"its vocabulary of {rows:,} is padded, and was cut to the first {vocab_size:,}"


def _set_sizes(owner: Any, names: Iterable[str], rows: int, vocab_size: int) -> None:
    """Gives the items of a dictionary, or the attributes of an object, the new size in the place of the old one."""
    for name in names:
        if isinstance(owner, dict) and owner.get(name) == rows:
            owner[name] = vocab_size
        elif not isinstance(owner, dict) and vars(owner).get(name) == rows:
            set_attribute(owner, name, vocab_size)
