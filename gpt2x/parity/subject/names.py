"""Hugging Face's names, less the `transformer.` in front, for the modules and tensors of a model of unknown make."""

import re

from gpt2x.errors import UserError

HEAD = "lm_head.weight"
QKV = ("q", "k", "v")
"""A separate query, key or value projection is the site `h.N.attn.c_attn.q`, `.k` or `.v`: a third of c_attn."""


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


def whole_tensor(name: str) -> tuple[str, int | None]:
    """`h.0.attn.c_attn.k.weight` -> (`h.0.attn.c_attn.weight`, 1); any other name -> (itself, None)."""
    module, dot, leaf = name.rpartition(".")
    whole, third = whole_site(module)
    return f"{whole}{dot}{leaf}", third


def whole_site(site: str) -> tuple[str, int | None]:
    """`h.0.attn.c_attn.k` -> (`h.0.attn.c_attn`, 1); any other site -> (itself, None)."""
    whole, _, part = site.rpartition(".")
    return (whole, QKV.index(part)) if whole.endswith("c_attn") and part in QKV else (site, None)
