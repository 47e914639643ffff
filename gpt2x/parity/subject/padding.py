"""Models whose tables are padded: they have more rows than there are tokens, or a few more than there are positions."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from gpt2x.parity.subject.constructing.constants import set_attribute
from gpt2x.parity.subject.constructing.meanings import Meaning, meaning_of
from gpt2x.parity.subject.constructing.size import has_more_positions, is_padded, seen_in


def cut_tables(module: nn.Module, vocab_size: int, n_positions: int, width: int) -> str:
    """Cuts the tables of a model to the first `vocab_size` or `n_positions` rows; returns what was done.

    Sizes that its code may ask for are changed as well. Empty if no table is padded.
    """
    seen, done = seen_in(module), []
    if seen.vocab_size is not None and is_padded(seen.vocab_size, vocab_size):
        _cut(module, seen.vocab_size, vocab_size, width, Meaning.VOCABULARY)
        done.append(f"its vocabulary of {seen.vocab_size:,} is padded, and was cut to the first {vocab_size:,}")
    if seen.n_positions is not None and has_more_positions(seen.n_positions, n_positions):
        _cut(module, seen.n_positions, n_positions, width, None)
        done.append(f"its table of {seen.n_positions:,} positions was cut to the first {n_positions:,}")
    return "; ".join(done)


def _cut(module: nn.Module, rows: int, size: int, width: int, meaning: Meaning | None) -> None:
    """Cuts all tables [rows, width] to `size` rows; attributes and items with this meaning get the new size."""
    for part in module.modules():
        own = dict(part.named_parameters(recurse=False))
        if any(sorted(parameter.squeeze().shape) == sorted((rows, width)) for parameter in own.values()):
            for parameter in own.values():
                axis = next((axis for axis, length in enumerate(parameter.shape) if length == rows), None)
                if axis is not None:
                    parameter.data = parameter.data.narrow(axis, 0, size).contiguous()
        _set_sizes(part, ("num_embeddings", "out_features"), rows, size)
        for owner in (part, *(value for name, value in vars(part).items() if not name.startswith("_"))):
            names = owner if isinstance(owner, dict) else getattr(owner, "__dict__", {})
            known = [name for name in names if meaning and isinstance(name, str) and meaning_of(name) is meaning]
            _set_sizes(owner, known, rows, size)


def _set_sizes(owner: Any, names: Iterable[str], rows: int, size: int) -> None:
    """Gives the items of a dictionary, or the attributes of an object, the new size in the place of the old one."""
    for name in names:
        if isinstance(owner, dict) and owner.get(name) == rows:
            owner[name] = size
        elif not isinstance(owner, dict) and vars(owner).get(name) == rows:
            set_attribute(owner, name, size)
