"""The forward pass on a CPU, compiled: the same function as the model's, in one call.

A step for few texts has to read every weight once, and little to compute. The model's forward pass calls about 200
operators for it, most of which compute next to nothing. Here numba compiles the whole pass, once per installation and
dtype (about 12 s), and keeps the machine code beside forward.py or in the user's cache. Activations are float32
whatever the weights are stored in: with 16-bit weights, and with int8, they are not rounded as the operators of torch
do. What is computed for a token is the same to the last bit whatever other tokens are in the pass.

Import this package only to use it: numba and the compiled code take about 0.7 s to load.
"""

import logging
import threading
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import numba
import numpy as np
import torch
from torch import Tensor, nn

from gpt2x.model.block import Block
from gpt2x.model.cache import KVCache
from gpt2x.model.compiled.forward import forward_for
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.copies import WeightCopy
from gpt2x.model.kernels.int8 import Int8Linear

# What numba sees of a tensor: float32, or the bits of a 16-bit float (numbers.py).
_STORED = {torch.bfloat16: np.uint16, torch.float16: np.int16}


def _start_threads() -> int:
    """Starts numba's threads and returns their number.

    numba's OpenMP layer then sets the number of threads of all of OpenMP, and so that of torch, which is put back.
    """
    threads = torch.get_num_threads()
    most: int = numba.get_num_threads()
    torch.set_num_threads(threads)
    return most


_MOST_THREADS = _start_threads()
_FEW_PRODUCTS = 4_000_000  # in one block: with fewer, threads spend their time on waiting for each other
# The threading layer `workqueue` of numba cannot be called from two threads at the same time.
_one_at_a_time = threading.Lock()
_log = logging.getLogger(__name__)


class CompiledPass:
    """Adds tokens to the rows of a cache. The weights must stay as they are while it is in use."""

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
            _array(cache.k),
            _array(cache.v),
            model.config.layer_norm_epsilon,
        )
        kinds = tuple(map(numba.typeof, self.tables))
        self.in_one_thread, self.in_threads = (forward_for(kinds, shared) for shared in (False, True))
        self.vocab_size = model.config.vocab_size
        self.products_per_token = 12 * model.config.n_embd**2
        """In one block."""

    def __call__(self, tokens: list[int], lengths: tuple[int, ...]) -> Tensor:
        """Adds a token behind the so many tokens of each row; returns the logits [B, V] for the next token of each."""
        rows = range(len(tokens))
        return self._run(tokens, rows, lengths, rows)

    def prefill(self, prompts: list[list[int]], first: int) -> Tensor:
        """Writes prompts into empty rows, from row `first` on; returns the logits [B, V] for the token after each."""
        rows = [first + row for row, prompt in enumerate(prompts) for _ in prompt]
        places = [place for prompt in prompts for place in range(len(prompt))]
        last = [end - 1 for end in accumulate(map(len, prompts))]
        return self._run(list(chain(*prompts)), rows, places, last)

    def verify(self, tokens: list[list[int]], lengths: tuple[int, ...]) -> Tensor:
        """Adds tokens behind the so many of each row; returns the logits [B, T, V] after each, 0 where a row ends."""
        rows = [row for row, new in enumerate(tokens) for _ in new]
        steps = [step for new in tokens for step in range(len(new))]
        places = [lengths[row] + step for row, step in zip(rows, steps, strict=True)]
        logits = torch.zeros(len(tokens), max(map(len, tokens)), self.vocab_size)
        logits[rows, steps] = self._run(list(chain(*tokens)), rows, places, range(len(rows)))
        return logits

    def _run(self, tokens: Sequence[int], rows: Sequence[int], places: Sequence[int], last: Sequence[int]) -> Tensor:
        """Adds tokens [M], each at its place in its row; returns the logits [W, V], float32, after the tokens last."""
        logits = torch.empty(len(last), self.vocab_size)
        products = self.products_per_token * len(tokens)
        threads = min(torch.get_num_threads(), _MOST_THREADS) if products > _FEW_PRODUCTS else 1
        indices = [np.array(each, np.int64) for each in (tokens, rows, places, last)]
        function = self.in_one_thread if threads == 1 else self.in_threads
        _announce(function)
        with _one_at_a_time:
            numba.set_num_threads(threads)
            function(*indices, threads, *self.tables, logits.numpy())
        return logits


def _announce(function: Any) -> None:
    """Says that the function is about to be compiled, if it is."""
    if function.signatures:
        return
    folder, name = function.stats.cache_path, function.py_func.__name__
    if folder is None:
        _log.info(
            "compiling the decode step (10 to 15 s), for this process only: no folder for machine code can be written; "
            "set NUMBA_CACHE_DIR to one"
        )
    elif not any(Path(folder).glob(f"*{name}*.nbi")):
        _log.info("compiling the decode step: 10 to 15 s, once per installation and dtype")


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
