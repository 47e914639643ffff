"""The words in a name of a module or parameter, and what they say about its part in attention or in a norm."""

import re

_QUERY = {"q", "query", "queries", "querys", "wq", "qw", "qproj", "qlin"}
_KEY = {"k", "key", "keys", "wk", "kw", "kproj", "klin"}
_VALUE = {"v", "value", "values", "val", "wv", "vw", "vproj", "vlin"}
_FIRST = {"1", "one", "first", "attn", "attention", "att", "sa", "mha", "input", "pre"}
_SECOND = {"2", "two", "second", "mlp", "ff", "ffn", "ffwd", "feed", "forward", "post"}
WEIGHTS = ("weight", "scale", "gamma", "alpha", "gain", "g", "w", "a")
"""Names of a norm's weight."""
BIASES = ("bias", "shift", "beta", "offset", "b")
"""Names of a norm's bias."""


def words(name: str) -> list[str]:
    """`blocks.0.mhAttn.W_query1` -> [blocks, 0, mh, attn, w, query, 1]."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return re.findall(r"[a-z]+|\d+", apart.lower())


def projection(name: str) -> str:
    """`q`, `k` or `v` where the last word that says so does, else nothing."""
    for word in reversed(words(name)):
        for part, known in (("q", _QUERY), ("k", _KEY), ("v", _VALUE)):
            if word in known:
                return part
    return ""


def norm_of(name: str) -> int | None:
    """1 for the norm before attention, 2 for the one before the MLP; None where the name does not say."""
    found = {number for word in words(name) for number, known in ((1, _FIRST), (2, _SECOND)) if word in known}
    return found.pop() if len(found) == 1 else None
