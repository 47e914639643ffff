"""The decode step for one text on a CPU, compiled: the same function as the model's, in one call.

A step for one token has to read every weight once, and little to compute. The model's forward pass calls about 200
operators for it, most of which compute next to nothing. Here numba compiles the whole step, once per installation and
dtype (about 10 s), and keeps the machine code beside step.py or in the user's cache. Activations are float32 whatever
the weights are stored in: with 16-bit weights, and with int8, they are not rounded as the operators of torch do.

Import this package only to use it: numba and the compiled code take about 0.7 s to load.
"""

import threading
from typing import Any, cast
from weakref import WeakKeyDictionary

import numba
import numpy as np
import torch
from torch import Tensor, nn

from gpt2x.model.block import Block
from gpt2x.model.cache import KVCache
from gpt2x.model.compiled.step import step
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.copies import WeightCopy
from gpt2x.model.kernels.int8 import Int8Linear

# What numba sees of a tensor: float32, or the bits of a 16-bit float (numbers.py).
_STORED = {torch.bfloat16: np.uint16, torch.float16: np.int16}
_MOST_THREADS: int = numba.get_num_threads()
# The threading layer `workqueue` of numba cannot be called from two threads at the same time.
_one_at_a_time = threading.Lock()


class CompiledStep:
    """Adds one token to the only row of a cache. The weights must stay as they are while it is in use."""

    def __init__(self, model: GPT2, cache: KVCache) -> None:
        transformer, last = model.transformer, model.transformer.ln_f
        layers, norms = [], []
        for block in cast("list[Block]", list(transformer.h)):
            layers.append((block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj))
            norms.append((block.ln_1, block.ln_2))
        weights = [[_weight(layer, by_inputs=True) for layer in four] for four in layers]
        head, head_scales = _weight(model.lm_head, by_inputs=False)
        self.weights = weights  # holds the memory of the addresses
        self.tables = (
            np.array([[weight.data_ptr() for weight, _ in four] for four in weights], np.int64),
            _stacked([torch.cat([scales for _, scales in four]) for four in weights]),
            _stacked(
                [torch.stack([p for norm in two for p in (norm.weight, norm.bias)]) for two in [*norms, (last, last)]]
            ),
            _stacked([torch.cat([layer.bias for layer in four]) for four in layers]),
            _array(transformer.wte.weight),
            _array(transformer.wpe.weight),
            _array(head),
            head_scales.numpy(),
            _array(cache.k[:, 0]),
            _array(cache.v[:, 0]),
            model.config.layer_norm_epsilon,
        )
        self.vocab_size = model.config.vocab_size

    def __call__(self, tokens: list[int], lengths: tuple[int, ...]) -> Tensor:
        """Returns the logits [1, V], in float32, for the token after tokens[0], which follows lengths[0] others."""
        logits = torch.empty(1, self.vocab_size)
        with _one_at_a_time:
            numba.set_num_threads(min(torch.get_num_threads(), _MOST_THREADS))
            step(tokens[0], lengths[0] + 1, *self.tables, logits[0].numpy())
        return logits


_copies: "WeakKeyDictionary[nn.Linear, WeightCopy[tuple[Tensor, Tensor]]]" = WeakKeyDictionary()


def _weight(layer: nn.Linear, by_inputs: bool) -> tuple[Tensor, Tensor]:
    """The weight in the order [in, out] or [out, in], and what 1 stands for in each output [out].

    Copies, which are made of int8 and of weights that lie in memory in the other order, are kept for the next step.
    """
    weight = layer.weight.detach()
    if not isinstance(layer, Int8Linear):
        ordered = weight.t() if by_inputs else weight
        if ordered.is_contiguous():
            return ordered, torch.ones(layer.out_features)
    kept = _copies.get(layer)
    if kept is None or not kept.is_of(layer.weight):
        numbers, scales = layer.rounded() if isinstance(layer, Int8Linear) else (weight, torch.ones(layer.out_features))
        kept = WeightCopy(layer.weight, ((numbers.t() if by_inputs else numbers).contiguous(), scales))
        _copies[layer] = kept
    return kept.value


def _array(tensor: Tensor) -> Any:
    """The memory of a tensor, as compiled code takes it."""
    tensor = tensor.detach()
    if tensor.dtype in _STORED:
        return tensor.view(torch.int16).numpy().view(_STORED[tensor.dtype])
    return tensor.numpy()


def _stacked(tensors: list[Tensor]) -> Any:
    return torch.stack(tensors).detach().float().numpy()
