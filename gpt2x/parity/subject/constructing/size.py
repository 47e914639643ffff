"""Reads the size of a model from its parameters and modules."""

from collections import Counter
from dataclasses import dataclass

from torch import nn

from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.constructing.meanings import Meaning, meaning_of

_PADDING = 1024  # fewer rows than this are added, and than an eighth of the tokens
_MORE_POSITIONS = 8  # as many rows at most are added for positions, and a sixteenth of them


@dataclass(frozen=True)
class Seen:
    """The sizes that can be seen in a model; None for one that cannot."""

    vocab_size: int | None
    n_positions: int | None
    n_embd: int | None
    n_layer: int | None
    n_head: int | None

    def differs_from(self, config: GPT2Config) -> bool:
        """Whether one of the sizes that can be seen is another one; a table that is padded is not."""
        sizes = vars(self)
        if self.n_positions is not None and has_more_positions(self.n_positions, config.n_positions):
            sizes = sizes | {"n_positions": config.n_positions}
        if self.vocab_size is not None and is_padded(self.vocab_size, config.vocab_size):
            sizes = sizes | {"vocab_size": config.vocab_size}
        return any(size not in (None, getattr(config, name)) for name, size in sizes.items())

    def config(self, asked: GPT2Config) -> GPT2Config | None:
        """The architecture with these sizes, and with those of `asked` that cannot be seen; None if no GPT-2 has them.

        A vocabulary that is GPT-2's but for a padding is GPT-2's.
        """
        sizes = {name: getattr(asked, name) if size is None else size for name, size in vars(self).items()}
        if is_padded(sizes["vocab_size"], GPT2Config().vocab_size):
            sizes["vocab_size"] = GPT2Config().vocab_size
        try:
            return GPT2Config(**sizes)
        except ValueError:
            return None


def is_padded(rows: int, vocab_size: int) -> bool:
    """Whether a table has somewhat more rows than there are tokens: a multiple of 64 or 128, or some special tokens."""
    return vocab_size < rows < vocab_size + min(_PADDING, vocab_size // 8)


def has_more_positions(rows: int, n_positions: int) -> bool:
    """Whether a table has a few more rows than there are positions, such as one for padding."""
    return n_positions < rows <= n_positions + min(_MORE_POSITIONS, n_positions // 16)


def seen_in(module: nn.Module) -> Seen:
    """The sizes of a model: of its two embeddings, its list of blocks, and what the attributes say of the heads."""
    vocabulary, positions, width = _embeddings(module)
    return Seen(vocabulary, positions, width, _layers(module), _heads(module, width))


def _embeddings(module: nn.Module) -> tuple[int | None, int | None, int | None]:
    """Rows of the token embedding and of the position embedding, and their width."""
    tables = [tuple(part.weight.shape) for part in module.modules() if isinstance(part, nn.Embedding)]
    named = {name: tuple(parameter.squeeze().shape) for name, parameter in module.named_parameters()}
    loose = [shape for name, shape in named.items() if "pos" in name.lower() and len(shape) == 2]
    if not tables:
        return None, None, None
    rows, width = max(tables)
    others = [shape[0] for shape in (*tables, *loose) if shape != (rows, width) and shape[1] == width]
    if not others and tables.count((rows, width)) > 1:  # as many positions as tokens
        others = [rows]
    return rows, max(others, default=None), width


def _layers(module: nn.Module) -> int | None:
    """The length of the longest list of modules of one class, each of which has a norm or a projection of its own."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    found = []
    for part in lists:
        kind, number = Counter(type(child) for child in part).most_common(1)[0] if len(part) else (nn.Identity, 0)
        size = sum(p.numel() for child in part if type(child) is kind for p in child.parameters())
        if len(list(next((c for c in part if type(c) is kind), nn.Identity()).modules())) > 3:
            found.append((size, number))
    return max(found)[1] if found else None


def _heads(module: nn.Module, width: int | None) -> int | None:
    """What an attribute such as `self.n_head` says, or `self.head_dim`."""
    for part in module.modules():
        numbers = {name: value for name, value in vars(part).items() if type(value) is int}
        meanings = {meaning_of(name, numbers): value for name, value in numbers.items()}
        if Meaning.HEADS in meanings:
            return meanings[Meaning.HEADS]
        if width and meanings.get(Meaning.HEAD_WIDTH):
            return width // meanings[Meaning.HEAD_WIDTH]
        if isinstance(part, nn.MultiheadAttention):
            return int(part.num_heads)
    return None
