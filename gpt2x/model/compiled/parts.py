"""What a forward pass does with one token besides products, in float32 whatever the cache is stored in.

Sums are made in an order that is written out, so that every compilation of these functions gives the same bytes.

Legend of shapes: S all tokens so far, C n_embd, D the width of a head. mypy does not see into compiled functions,
whose arguments are arrays of numpy.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from gpt2x.model.compiled.numbers import FUSED, exp, number, rounded
from gpt2x.model.compiled.vectors import COLUMNS, dot

_TANH_SCALE, _TANH_CUBIC = np.float32(-2 * np.sqrt(2 / np.pi)), np.float32(0.044715)  # arXiv:1606.08415
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(fastmath=FUSED)
def _sum(x):
    """The sum of x [n], as that of COLUMNS sums."""
    sums = np.zeros(COLUMNS, np.float32)
    whole = x.size - x.size % COLUMNS
    for start in range(0, whole, COLUMNS):
        for c in range(COLUMNS):
            sums[c] += x[start + c]
    for c in range(whole, x.size):
        sums[c - whole] += x[c]
    total = _ZERO
    for c in range(COLUMNS):
        total += sums[c]
    return total


@njit(fastmath=FUSED)
def norm(x, weight, bias, eps, y):
    """Layer norm: x [C] -> y [C]."""
    n = np.float32(x.size)
    mean = _sum(x) / n
    for c in range(x.size):
        y[c] = (x[c] - mean) * (x[c] - mean)
    scale = _ONE / np.sqrt(_sum(y) / n + np.float32(eps))
    for c in range(x.size):
        y[c] = (x[c] - mean) * scale * weight[c] + bias[c]


@njit(fastmath=FUSED)
def gelu(x):
    """The tanh approximation of GELU, in place: x [n]. As tanh(z) = 2 / (1 + exp(-2 z)) - 1, it needs no tanh."""
    for c in range(x.size):
        u = x[c]
        x[c] = u / (_ONE + exp(_TANH_SCALE * (u + _TANH_CUBIC * u * u * u)))


@njit(fastmath=FUSED)
def store(new, memory):
    """Writes new keys or values [D] into the memory of a cache [D], in its dtype."""
    for d in range(new.size):
        memory[d] = rounded(new[d], memory)


@njit(fastmath=FUSED)
def attend(q, keys, values, S, scores, y):
    """Attends with q [D] to the first S of keys and values [capacity, D]: y [D]. Overwrites scores [S]."""
    D, whole = q.size, q.size - q.size % COLUMNS
    scale = _ONE / np.sqrt(np.float32(D))
    largest = np.float32(-np.inf)
    for s in range(S):
        score = dot(q, keys[s], whole)
        for d in range(whole, D):
            score += q[d] * number(keys[s, d])
        scores[s] = score * scale
        largest = max(largest, scores[s])
    for s in range(S):
        scores[s] = exp(scores[s] - largest)
    total = _sum(scores[:S])
    y[:] = _ZERO
    for s in range(S):
        weight = scores[s] / total
        for d in range(D):
            y[d] += weight * number(values[s, d])
