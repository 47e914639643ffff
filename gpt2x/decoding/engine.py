"""Running the model: prefill reads prompts, decode_one_token adds one token to each text, and verify several."""

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gpt2x.decoding.arithmetic import arithmetic
from gpt2x.decoding.graph import GraphStep, has_graphs
from gpt2x.errors import UserError
from gpt2x.memory import available_memory
from gpt2x.model import kernels
from gpt2x.model.cache import KVCache
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.capabilities import has_float16, has_onednn
from gpt2x.model.kernels.int8 import Int8Linear

if TYPE_CHECKING:
    from gpt2x.model.compiled import CompiledPass

# Tokens per forward pass, padding included: with more, the products become no faster, and memory use grows.
_PREFILL_TOKENS = 512
# The compiled pass takes about 0.7 s to load, which 60 steps of the 124M model save again (two AVX-512 cores).
_COMPILED_FROM = 60 * 124_000_000  # decode steps to come, times parameters

_log = logging.getLogger(__name__)


class Step(Protocol):
    """Another way to compute what decode_one_token does, made for one cache."""

    def __call__(self, tokens: list[int], lengths: tuple[int, ...]) -> Tensor:
        """Adds a token behind the so many tokens of each row; returns the logits [B, V] for the next token of each."""


@dataclass(frozen=True)
class _Compiled:
    """The compiled pass of a cache, and up to how many tokens it is to be used for prefill and verification."""

    run: "CompiledPass"
    most_tokens: int


_steps: "WeakKeyDictionary[KVCache, Step]" = WeakKeyDictionary()
_passes: "WeakKeyDictionary[KVCache, _Compiled]" = WeakKeyDictionary()


def pack(model: GPT2) -> None:
    """Copies the weights into an order that is faster for many passes over several tokens, if memory allows it."""
    if available_memory() < 2 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()):
        return
    kernels.pack(model)


def prepare(model: GPT2, cache: KVCache, steps: int, deterministic: bool = False) -> bool:
    """Chooses how decode_one_token computes for this cache, by how many steps it will have to take.

    The choice depends on nothing else but the model, the cache and the CPU, so that a job has the same results whenever
    and in whichever process it runs. If the step is compiled, so are prefill and verification of few tokens. With
    `deterministic`, all passes are computed such that a text does not depend on the others to the last bit. Returns
    whether the step is compiled, and logs in which numbers it computes. Raises UserError where deterministic passes are
    not possible.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    obstacle = _obstacle(model, cache)
    if deterministic and obstacle is not None:
        raise UserError(f"deterministic=true: {obstacle}")
    most_tokens = sys.maxsize if deterministic else _most_tokens(model)
    is_compiled = deterministic or (
        obstacle is None and steps * parameters >= _COMPILED_FROM and cache.k.shape[1] <= most_tokens
    )
    if is_compiled:
        from gpt2x.model.compiled import CompiledPass  # numba, which takes its time to load

        _steps[cache] = compiled = CompiledPass(model, cache)
        _passes[cache] = _Compiled(compiled, most_tokens)
    words = arithmetic(model, is_compiled)
    if words:
        _log.info("decode steps: %s", words)
    return is_compiled


def _obstacle(model: GPT2, cache: KVCache) -> str | None:
    """Why the compiled pass cannot be used; None if it can."""
    if cache.k.device.type != "cpu":
        return "is computed on a CPU only; add device=cpu"
    if cache.k.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return "is not computed in float64; use dtype=float32"
    if model.config.n_embd % 8:
        return f"needs an n_embd that is a multiple of 8, and this model has {model.config.n_embd}"
    return None


def _most_tokens(model: GPT2) -> int:
    """The most tokens at once for which the compiled pass is, as measured, at least as fast as torch's operators.

    gpt2x/decoding/README.md has the measurements, on a Xeon and on an EPYC of Zen 4. CPUs that multiply 16-bit or 8-bit
    numbers as they are soon overtake the compiled pass, which multiplies in float32.
    """
    dtype = model.lm_head.weight.dtype
    if isinstance(model.lm_head, Int8Linear):
        return 16
    if dtype == torch.float32:
        return 32
    has_products = has_float16() if dtype == torch.float16 else has_onednn(dtype)
    return 16 if has_products else _PREFILL_TOKENS


@torch.inference_mode()
def prefill(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    """Adds prompts of any lengths to the cache as new rows; returns the logits [B, V] for the token after each.

    Prompts go through the model in groups, padded on the right: a token does not depend on what follows it, and the
    padding does not count in the cache's lengths. Equal prompts that follow each other go through the model once.
    Raises ValueError where a prompt exceeds n_positions.
    """
    logits = []
    while prompts:
        group = prompts[:1]
        rows = [0]  # for each prompt, its row in the group
        for prompt in prompts[1:]:
            if prompt != group[-1]:
                if (len(group) + 1) * max(map(len, [*group, prompt])) > _PREFILL_TOKENS:
                    break
                group.append(prompt)
            rows.append(len(group) - 1)
        start, lengths = len(cache.lengths), [len(group[row]) for row in rows]
        compiled = _compiled_for(cache, group)
        if compiled is not None:
            logits.append(compiled.prefill(group, start)[rows])
        else:
            logits.append(_forward(model, group, cache.unused(len(group)))[rows])
        for i in reversed(range(len(rows))):  # from the last row, as each source lies before its copies
            if rows[i] < i:
                cache.copy(start + rows[i], start + i, lengths[i])
        cache.add_rows(lengths)
        prompts = prompts[len(rows) :]
    return torch.cat(logits)


def _forward(model: GPT2, prompts: list[list[int]], cache: KVCache) -> Tensor:
    """The logits [B, V] for the token after each prompt."""
    ids = _padded(model, prompts)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=ids.device)
    hidden = model.transformer(ids, cache)[torch.arange(len(prompts), device=ids.device), last]  # [B, C]
    return model.lm_head(hidden)


@torch.inference_mode()
def decode_one_token(model: GPT2, tokens: list[int], cache: KVCache) -> Tensor:
    """Adds one token to each row of the cache; returns the logits [B, V] for the next token of each.

    On a GPU, the next call for this cache overwrites them.
    """
    if cache not in _steps:
        if not has_graphs(cache):
            return verify(model, [[token] for token in tokens], cache)[:, 0]
        _steps[cache] = GraphStep(model, cache)
    logits = _steps[cache](tokens, cache.lengths)
    cache.advance(1)
    return logits


@torch.inference_mode()
def verify(model: GPT2, tokens: list[list[int]], cache: KVCache) -> Tensor:
    """Adds tokens to each row of the cache; returns the logits [B, T, V] for the token after each of them.

    All rows grow by T, the largest number of tokens: the caller truncates the cache to the tokens that count.
    """
    compiled = _compiled_for(cache, tokens)
    if compiled is None:
        return model(_padded(model, tokens), cache)
    logits = compiled.verify(tokens, cache.lengths)
    cache.advance(logits.shape[1])
    return logits


def _compiled_for(cache: KVCache, texts: list[list[int]]) -> "CompiledPass | None":
    """The compiled pass, if it is to be used for these tokens."""
    compiled = _passes.get(cache)
    return compiled.run if compiled is not None and sum(map(len, texts)) <= compiled.most_tokens else None


def _padded(model: GPT2, texts: list[list[int]]) -> Tensor:
    T = max(map(len, texts))
    return torch.tensor([text + [0] * (T - len(text)) for text in texts], device=model.lm_head.weight.device)  # [B, T]
