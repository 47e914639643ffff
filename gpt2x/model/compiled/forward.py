"""A forward pass over tokens of several texts, for weights in float32, bfloat16, float16 or int8, read where they are.

What is computed for a token does not depend on the other tokens of the pass, nor on the number of threads, to the
last bit. The weights of a block lie in memory as [in, out], as in Hugging Face's checkpoints. Each loop over prange,
here and in products.py, is shared out among threads, and ends when all are done.
"""
# mypy: allow-untyped-defs

import hashlib
from functools import cache
from pathlib import Path

import numba
import numpy as np
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import carray, njit, prange

from gpt2x.model.compiled.numbers import FUSED, number, pointer
from gpt2x.model.compiled.parts import attend, gelu, norm, store
from gpt2x.model.compiled.products import MOST_STREAMS, add_slices, multiply, multiply_rows

_MOST_SLICES = 16


@cache
def forward_for(kinds, shared):
    """The function for tables of these types of numba's, for several threads or for one.

    Its machine code is kept on disk, under a name that stands for all that it is made from. By itself, numba looks
    whether this file has changed, and not the other files; and of processes that compile functions of one name at the
    same time, one may be given the function of another later.
    """

    def forward(
        tokens,
        rows,
        places,
        last,
        threads,
        matrices,
        scales,
        norms,
        biases,
        wte,
        wpe,
        head,
        head_scales,
        keys,
        values,
        eps,
        logits,
    ):
        """Adds tokens [M], each at its place in its row; writes the logits [W, V] after the tokens last [W].

        Tokens of one row are in their order. matrices [n_layer, 4] are the addresses of c_attn, c_proj, c_fc and
        mlp.c_proj, whose numbers are stored as those of head [V, C]; scales [n_layer, 9 C] and head_scales [V] are
        what 1 stands for in each output of these. biases [n_layer, 9 C] are those of the four matrices; norms
        [n_layer + 1, 4, C] are the weights and biases of ln_1 and ln_2, and those of ln_f; wte [V, C], wpe
        [n_positions, C]; keys and values [n_layer, rows, H, capacity, D].
        """
        n_layer, _, H, _, D = keys.shape
        M, C = tokens.size, H * D
        N = _MOST_SLICES
        while C % (N * MOST_STREAMS):
            N -= 1
        parts, parts_mlp = (N, 4 * N) if M == 1 else (1, 1)  # slices that are left to add up
        x, h, act = np.empty((M, C), np.float32), np.empty((M, C), np.float32), np.empty((M, 4 * C), np.float32)
        attn, qkv = np.empty((M, H, 3, D), np.float32), np.empty((parts, M, 3 * C), np.float32)
        inner, outer = np.empty((parts, M, 4 * C), np.float32), np.empty((parts_mlp, M, C), np.float32)
        scores = np.empty((M, H, max(places) + 1), np.float32)
        for m in prange(M):
            for c in range(C):
                x[m, c] = number(wte[tokens[m], c]) + number(wpe[places[m], c])
        for layer in range(n_layer):
            scale, bias = scales[layer], biases[layer]
            c_attn = carray(pointer(matrices[layer, 0], head), (C, 3 * C))
            attn_proj = carray(pointer(matrices[layer, 1], head), (C, C))
            c_fc = carray(pointer(matrices[layer, 2], head), (C, 4 * C))
            mlp_proj = carray(pointer(matrices[layer, 3], head), (4 * C, C))
            for m in prange(M):
                norm(x[m], norms[layer, 0], norms[layer, 1], eps, h[m])
            multiply(h, c_attn, N, threads, qkv)
            for each in prange(M * H):
                m, one = each // H, each % H
                new = attn[m, one]
                new[:] = 0
                for i in range(3):
                    start = i * C + one * D
                    add_slices(qkv[:, m, start : start + D], scale[start : start + D], bias[start : start + D], new[i])
                store(new[1], keys[layer, rows[m], one, places[m]])
                store(new[2], values[layer, rows[m], one, places[m]])
            for each in prange(M * H):
                m, one = each // H, each % H
                k, v, y = keys[layer, rows[m], one], values[layer, rows[m], one], h[m, one * D : (one + 1) * D]
                attend(attn[m, one, 0], k, v, places[m] + 1, scores[m, one], y)
            multiply(h, attn_proj, N, threads, outer[:parts])
            for m in prange(M):
                add_slices(outer[:parts, m], scale[3 * C : 4 * C], bias[3 * C : 4 * C], x[m])
                norm(x[m], norms[layer, 2], norms[layer, 3], eps, h[m])
            multiply(h, c_fc, N, threads, inner)
            for each in prange(M * N):
                m, start, stop = each // N, each % N * (4 * C // N), (each % N + 1) * (4 * C // N)
                part = act[m, start:stop]
                part[:] = 0
                of_outputs = slice(4 * C + start, 4 * C + stop)
                add_slices(inner[:, m, start:stop], scale[of_outputs], bias[of_outputs], part)
                gelu(part)
            multiply(act, mlp_proj, 4 * N, threads, outer)
            for m in prange(M):
                add_slices(outer[:, m], scale[8 * C :], bias[8 * C :], x[m])
        for w in prange(last.size):
            norm(x[last[w]], norms[n_layer, 0], norms[n_layer, 1], eps, h[w])
        multiply_rows(h[: last.size], head, head_scales, threads, logits)

    made_from = (_sources(), kinds, shared, numba.__version__, get_host_cpu_name(), get_host_cpu_features().flatten())
    name = "forward_" + hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
    forward.__name__ = forward.__qualname__ = name
    options = {"parallel": shared, "fastmath": FUSED}
    try:
        return njit(cache=True, **options)(forward)
    except RuntimeError:  # neither the package's folder nor the user's for caches can be written
        return njit(**options)(forward)


@cache
def _sources():
    """A digest of the files from which the function is compiled."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
