"""The decode step: for weights in float32, bfloat16, float16 or int8, which are read where they are.

The weights of a block lie in memory as [in, out], as in Hugging Face's checkpoints. Threads share the slices of a
product along `in`, whose number is fixed, so that sums do not depend on the number of threads; whoever needs the
product adds the slices up. Each loop over prange is shared out among threads, and ends when all are done.
"""
# mypy: allow-untyped-defs

import hashlib
from pathlib import Path

import numpy as np
from numba import carray, njit, prange

from gpt2x.model.compiled.numbers import FAST, number, pointer
from gpt2x.model.compiled.parts import STREAMS, add_slices, attend, gelu, multiply_rows, multiply_slice, norm
from gpt2x.model.compiled.vectors import ROWS

_MOST_SLICES = 16


def _compiled(sources):
    """The step, whose machine code is kept on disk for these sources.

    numba looks whether this file has changed, and not the functions of other files; what a function closes over, it
    does keep with the code.
    """

    @njit(cache=True, parallel=True, fastmath=FAST)
    def step(token, S, matrices, scales, norms, biases, wte, wpe, head, head_scales, keys, values, eps, logits):
        """Adds a token behind S - 1 others: writes its keys and values, and the logits [V] of the next token.

        matrices [n_layer, 4] are the addresses of c_attn, c_proj, c_fc and mlp.c_proj, whose numbers are stored as
        those of head [V, C]; scales [n_layer, 9 C] and head_scales [V] are what 1 stands for in each output of these.
        biases [n_layer, 9 C] are those of the four matrices; norms [n_layer + 1, 4, C] are the weights and biases of
        ln_1 and ln_2, and those of ln_f; wte [V, C], wpe [n_positions, C]; keys and values [n_layer, H, capacity, D].
        """
        _ = sources  # so that the function closes over it
        n_layer, H, _, D = keys.shape
        C = H * D
        N = _MOST_SLICES
        while C % (N * STREAMS):
            N -= 1
        x, h = np.empty(C, np.float32), np.empty(C, np.float32)
        for c in range(C):
            x[c] = number(wte[token, c]) + number(wpe[S - 1, c])
        qkv, heads = np.empty((N, 3 * C), np.float32), np.empty((H, C), np.float32)
        inner, outer = np.empty((N, 4 * C), np.float32), np.empty((N, C), np.float32)
        parts, scores, act = np.empty((H, 4, D), np.float32), np.empty((H, S), np.float32), np.empty(4 * C, np.float32)
        for layer in range(n_layer):
            scale, bias = scales[layer], biases[layer]
            c_attn = carray(pointer(matrices[layer, 0], head), (C, 3 * C))
            attn_proj = carray(pointer(matrices[layer, 1], head), (C, C))
            c_fc = carray(pointer(matrices[layer, 2], head), (C, 4 * C))
            mlp_proj = carray(pointer(matrices[layer, 3], head), (4 * C, C))
            norm(x, norms[layer, 0], norms[layer, 1], eps, h)
            for s in prange(N):
                multiply_slice(h, c_attn, s * (C // N), (s + 1) * (C // N), qkv[s])
            for one in prange(H):  # attention, and the slice of c_proj that this head feeds
                part = parts[one]
                part[:] = 0
                for i in range(3):
                    start = i * C + one * D
                    stop = start + D
                    add_slices(qkv[:, start:stop], scale[start:stop], bias[start:stop], part[i])
                attend(part[0], part[1], part[2], keys[layer, one], values[layer, one], S, scores[one], part[3])
                h[one * D : (one + 1) * D] = part[3]
                multiply_slice(h, attn_proj, one * D, (one + 1) * D, heads[one])
            add_slices(heads, scale[3 * C : 4 * C], bias[3 * C : 4 * C], x)
            norm(x, norms[layer, 2], norms[layer, 3], eps, h)
            for s in prange(N):
                multiply_slice(h, c_fc, s * (C // N), (s + 1) * (C // N), inner[s])
            for s in prange(N):  # the activation of the inputs of a slice, and the slice of mlp.c_proj
                start, stop = s * (4 * C // N), (s + 1) * (4 * C // N)
                part = act[start:stop]
                part[:] = 0
                add_slices(
                    inner[:, start:stop], scale[4 * C + start : 4 * C + stop], bias[4 * C + start : 4 * C + stop], part
                )
                gelu(part)
                multiply_slice(act, mlp_proj, start, stop, outer[s])
            add_slices(outer, scale[8 * C :], bias[8 * C :], x)
        norm(x, norms[n_layer, 0], norms[n_layer, 1], eps, h)
        for block in prange((logits.size + ROWS - 1) // ROWS):
            multiply_rows(h, head, head_scales, ROWS * block, logits)

    return step


def _sources():
    """A digest of the files from which the step is compiled."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


step = _compiled(_sources())
