"""Hugging Face's names, less the `transformer.` in front, for the modules and tensors of a model of unknown make."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gpt2x.errors import UserError
from gpt2x.shell import shell_quoted

HEAD = "lm_head.weight"
HEAD_BIAS = "lm_head.bias"
"""A parameter that GPT-2 does not have, and many that are written after it do."""
QKV = ("q", "k", "v")
"""A separate query, key or value projection is the site `h.N.attn.c_attn.q`, `.k` or `.v`: a third of c_attn.

That of one head is, for example, `h.N.attn.c_attn.q.3_of_12`, where heads are counted from 0.
"""
_MOST = 4  # names in a message
_PORTION = re.compile(r"(.*c_attn)\.([qkv])(?:\.(\d+)_of_(\d+))?")


@dataclass(frozen=True, order=True)
class Portion:
    """A part of c_attn's outputs: a third, or one head of it."""

    third: int
    head: int
    heads: int
    """1 for the whole third."""

    def of(self, whole: Tensor) -> Tensor:
        """This part of a tensor whose last dimension is that of c_attn's outputs."""
        return whole.chunk(3, dim=-1)[self.third].chunk(self.heads, dim=-1)[self.head]


def hf_name(own: str, rename: list[list[str]]) -> str:
    """Hugging Face's name for a model's own name of a module or tensor.

    `rename` are [regex, replacement] pairs, applied in order. Raises UserError if one of them cannot be applied.
    """
    own = own.replace("_orig_mod.", "").removeprefix("module.")  # prefixes of torch.compile and DataParallel
    for pattern, replacement in rename:
        try:
            own = re.sub(pattern, replacement, own)
        except re.error as error:
            raise UserError(f"subject.rename: [{pattern}, {replacement}] on {own}: {error}") from None
    return own.removeprefix("transformer.")


def rename_setting(rename: list[list[str]]) -> str:
    """`subject.rename=...` with these rules, quoted for bash."""
    pairs = ",".join(f'["{own}","{name}"]' for own, name in rename)
    return shell_quoted(f"subject.rename=[{pairs}]")


def unused_rules(names: Iterable[str], rename: list[list[str]]) -> list[list[str]]:
    """The rules that match none of a model's own names. All of them can be applied: see hf_name."""
    unused, current = [], set(names)
    for pattern, replacement in rename:
        if not any(re.search(pattern, name) for name in current):
            unused.append([pattern, replacement])
        current = {re.sub(pattern, replacement, name) for name in current}
    return unused


def whole_tensor(name: str) -> tuple[str, Portion | None]:
    """`h.0.attn.c_attn.k.weight` -> (`h.0.attn.c_attn.weight`, the keys); any other name -> (itself, None)."""
    module, dot, leaf = name.rpartition(".")
    whole, portion = whole_site(module)
    return f"{whole}{dot}{leaf}", portion


def is_dropout(site: str) -> bool:
    """Whether Hugging Face's module at a site is dropout: `drop`, `h.0.attn.resid_dropout`, `h.0.mlp.dropout`."""
    return "drop" in site.rpartition(".")[2]


def whole_site(site: str) -> tuple[str, Portion | None]:
    """`h.0.attn.c_attn.k` -> (`h.0.attn.c_attn`, the keys); any other site -> (itself, None)."""
    match = _PORTION.fullmatch(site)
    if match is None:
        return site, None
    whole, part, head, heads = match.groups()
    return whole, Portion(QKV.index(part), int(head or 0), int(heads or 1))


def portions_of(site: str, heads: int) -> list[str]:
    """The sites of c_attn's thirds, and of the heads of each."""
    thirds = [f"{site}.{part}" for part in QKV]
    return [*thirds, *(f"{third}.{head}_of_{heads}" for third in thirds for head in range(heads))]


def portion_of(site: str, whole: Tensor) -> Tensor:
    """The part of c_attn's output that is a site's; all of it for the site of the whole."""
    portion = whole_site(site)[1]
    return whole if portion is None else portion.of(whole)


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = names if len(names) <= _MOST else names[: _MOST - 1]
    rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + rest
