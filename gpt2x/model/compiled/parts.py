"""The parts of a decode step for one token of one text, in float32 whatever the weights are stored in.

Legend of shapes: S all tokens so far, C n_embd, D the width of a head, N a number of slices. mypy does not see into
compiled functions, whose arguments are arrays of numpy.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from gpt2x.model.compiled.numbers import FAST, exp, number, rounded
from gpt2x.model.compiled.vectors import COLUMNS, ROWS, add_products, dot_rows

STREAMS = 8  # rows of a weight that are read at the same time: one core reads twice as fast as from one row

_TANH_SCALE, _TANH_CUBIC = np.float32(-2 * np.sqrt(2 / np.pi)), np.float32(0.044715)  # arXiv:1606.08415
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(fastmath=FAST)
def norm(x, weight, bias, eps, y):
    """Layer norm: x [C] -> y [C]."""
    n = np.float32(x.size)
    mean = _ZERO
    for c in range(x.size):
        mean += x[c]
    mean /= n
    variance = _ZERO
    for c in range(x.size):
        variance += (x[c] - mean) * (x[c] - mean)
    scale = _ONE / np.sqrt(variance / n + np.float32(eps))
    for c in range(x.size):
        y[c] = (x[c] - mean) * scale * weight[c] + bias[c]


@njit(fastmath=FAST)
def gelu(x):
    """The tanh approximation of GELU, in place: x [n]. As tanh(z) = 2 / (1 + exp(-2 z)) - 1, it needs no tanh."""
    for c in range(x.size):
        u = x[c]
        x[c] = u / (_ONE + exp(_TANH_SCALE * (u + _TANH_CUBIC * u * u * u)))


@njit(fastmath=FAST)
def attend(q, k, v, keys, values, S, scores, y):
    """Writes k and v [D] as token S - 1 of keys and values [capacity, D], and attends with q [D] to all S: y [D]."""
    D = q.size
    for d in range(D):
        keys[S - 1, d] = rounded(k[d], keys)
        values[S - 1, d] = rounded(v[d], values)
    scale = _ONE / np.sqrt(np.float32(D))
    largest = np.float32(-np.inf)
    for s in range(S):
        score = _ZERO
        for d in range(D):
            score += q[d] * number(keys[s, d])
        scores[s] = score * scale
        largest = max(largest, scores[s])
    total = _ZERO
    for s in range(S):
        scores[s] = exp(scores[s] - largest)
        total += scores[s]
    y[:] = _ZERO
    for s in range(S):
        weight = scores[s] / total
        for d in range(D):
            y[d] += weight * number(values[s, d])


@njit(fastmath=FAST)
def add_slices(slices, scales, bias, x):
    """x [n] += the sum of slices [N, n], always in the same order, times scales [n], and bias [n]."""
    for c in range(x.size):
        total = slices[0, c]
        for s in range(1, slices.shape[0]):
            total += slices[s, c]
        x[c] += total * scales[c] + bias[c]


@njit(fastmath=FAST)
def multiply_slice(x, weight, start, stop, y):
    """The part of x @ weight that inputs start to stop, a multiple of STREAMS, add: x [in], weight [in, out], y [out].

    y is in the cache of the core, and each number of it is loaded and stored once per STREAMS rows of the weight.
    """
    y[:] = _ZERO
    whole = y.size - y.size % COLUMNS
    for i in range(start, stop, STREAMS):
        inputs = (x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6], x[i + 7])
        for c in range(0, whole, COLUMNS):
            add_products(inputs, weight, i, c, y)
        for k in range(STREAMS):
            for c in range(whole, y.size):
                y[c] += x[i + k] * number(weight[i + k, c])


@njit(fastmath=FAST)
def multiply_rows(x, weight, scales, start, y):
    """y[start : start + ROWS] of (weight @ x) * scales, fewer at the end: x [in], weight [out, in], scales [out]."""
    whole = x.size - x.size % COLUMNS
    if start + ROWS <= y.size:
        y[start], y[start + 1], y[start + 2], y[start + 3] = dot_rows(x, weight, start, whole)
    else:
        y[start:] = _ZERO
        whole = 0
    for o in range(start, min(start + ROWS, y.size)):
        total = y[o]
        for i in range(whole, x.size):
            total += x[i] * number(weight[o, i])
        y[o] = total * scales[o]
