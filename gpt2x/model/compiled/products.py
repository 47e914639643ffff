"""Products of several tokens with stored weights, whose bytes do not depend on the number of tokens or threads.

The sum over the inputs of a weight is made in slices, whose number is fixed. For one token, threads share the slices,
as then each reads its part of the weight in one go; for several, they share the outputs, and each weight that is read
is used for all tokens. For each token, the same numbers are added up in the same order.

Legend of shapes: M tokens, N slices (1 where they have been added up).
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit, prange
from numba.np.unsafe.ndarray import to_fixed_tuple

from gpt2x.model.compiled.numbers import FUSED, number
from gpt2x.model.compiled.vectors import (
    COLUMNS,
    HAS_32_REGISTERS,
    IS_ZEN,
    ROWS,
    add_panel_8,
    add_products,
    add_tile_1,
    add_tile_2,
    add_tile_4,
    add_tile_8,
    copy_panel,
    dot_rows_1,
    dot_rows_2,
    dot_rows_4,
)

# Rows of a weight that are read at the same time. One core of Intel's reads twice as fast from 8 rows as from one. One
# of Zen 4 reads 16-bit and 8-bit numbers 1.2 and 1.4 times as fast from one row, and float32 equally fast.
MOST_STREAMS = 8
_STREAMS = 1 if IS_ZEN else MOST_STREAMS
_BLOCK = 8 * COLUMNS  # most outputs that a thread computes at once for several tokens
# With so many tokens, the weights of a few slices are first copied to where they lie side by side, in float32: as they
# are stored, the rows of a weight displace each other from the nearest cache, and each tile of tokens reads them anew.
_MANY_TOKENS, _PANEL = 64, 4

_ZERO = np.float32(0)


@njit(fastmath=FUSED)
def multiply(x, weight, slices, threads, y):
    """The slices of x @ weight, added up if there is more than one token: x [M, in], weight [in, out], y [N, M, out].

    in is a multiple of slices * MOST_STREAMS.
    """
    if threads == 1:
        _multiply_alone(x, weight, slices, threads, y)
    else:
        _multiply_shared(x, weight, slices, threads, y)


@njit(fastmath=FUSED)
def add_slices(slices, scales, bias, x):
    """x [n] += the sum of slices [N, n], always in the same order, times scales [n], and bias [n].

    The sum is left in the first slice.
    """
    total = slices[0]
    for s in range(1, slices.shape[0]):
        for c in range(x.size):
            total[c] += slices[s, c]
    for c in range(x.size):
        x[c] += total[c] * scales[c] + bias[c]


@njit(fastmath=FUSED)
def multiply_rows(x, weight, scales, threads, y):
    """(x @ weight.T) * scales: x [M, in], weight [out, in], scales [out], y [M, out]."""
    if threads == 1:
        _multiply_rows_alone(x, weight, scales, y)
    else:
        _multiply_rows_shared(x, weight, scales, y)


def _multiply(x, weight, slices, threads, y):
    size = weight.shape[0] // slices
    if x.shape[0] == 1:
        for s in prange(slices):
            _multiply_slice(x[0], weight, s * size, (s + 1) * size, y[s, 0])
    else:
        outputs = weight.shape[1]
        turns = threads * ((outputs + threads * _BLOCK - 1) // (threads * _BLOCK))
        block = (outputs + turns * COLUMNS - 1) // (turns * COLUMNS) * COLUMNS
        for b in prange((outputs + block - 1) // block):
            _multiply_block(x, weight, slices, b * block, min(outputs, (b + 1) * block), y[0])


_multiply_shared, _multiply_alone = njit(parallel=True, fastmath=FUSED)(_multiply), njit(fastmath=FUSED)(_multiply)


def _multiply_all_rows(x, weight, scales, y):
    for block in prange((y.shape[1] + ROWS - 1) // ROWS):
        _multiply_some_rows(x, weight, scales, ROWS * block, y)


_multiply_rows_shared = njit(parallel=True, fastmath=FUSED)(_multiply_all_rows)
_multiply_rows_alone = njit(fastmath=FUSED)(_multiply_all_rows)


@njit(fastmath=FUSED)
def _multiply_slice(x, weight, start, stop, y):
    """The part of x @ weight that inputs start to stop, a multiple of _STREAMS, add: x [in], weight [in, out], y [out].

    y is in the cache of the core, and each number of it is loaded and stored once per _STREAMS rows of the weight.
    """
    y[:] = _ZERO
    whole = y.size - y.size % COLUMNS
    for i in range(start, stop, _STREAMS):
        inputs = to_fixed_tuple(x[i : i + _STREAMS], _STREAMS)
        for c in range(0, whole, COLUMNS):
            add_products(inputs, weight, i, c, y)
        for k in range(i, i + _STREAMS):
            for c in range(whole, y.size):
                y[c] += x[k] * number(weight[k, c])


@njit(fastmath=FUSED)
def _multiply_block(x, weight, slices, first, last, y):
    """The outputs first to last of x @ weight: x [M, in], weight [in, out], y [M, out]."""
    M, size = x.shape[0], weight.shape[0] // slices
    whole = last - (last - first) % COLUMNS
    y[:, first:last] = _ZERO
    done = 0  # tokens
    if HAS_32_REGISTERS and M >= _MANY_TOKENS:
        done = M - M % 8
        panel = np.empty((_PANEL * size, COLUMNS), np.float32)
        for s in range(0, slices, _PANEL):
            start, stop = s * size, min(s + _PANEL, slices) * size
            for c in range(first, whole, COLUMNS):
                copy_panel(weight, start, stop, c, panel)
                for m in range(0, done, 8):
                    for i in range(start, stop, size):
                        add_panel_8(x, panel, y, m, i, i - start, 0, size, c)
    for i in range(0, weight.shape[0], size):
        for c in range(first, whole, COLUMNS):
            m = done
            while HAS_32_REGISTERS and m + 8 <= M:
                add_tile_8(x, weight, y, m, i, i, c, size, c)
                m += 8
            if HAS_32_REGISTERS and m + 4 <= M:
                add_tile_4(x, weight, y, m, i, i, c, size, c)
                m += 4
            while m + 2 <= M:
                add_tile_2(x, weight, y, m, i, i, c, size, c)
                m += 2
            if m < M:
                add_tile_1(x, weight, y, m, i, i, c, size, c)
    part = np.empty(last - whole, np.float32)
    for s in range(slices):
        for m in range(M):
            part[:] = _ZERO
            for i in range(s * size, (s + 1) * size):
                for c in range(whole, last):
                    part[c - whole] += x[m, i] * number(weight[i, c])
            for c in range(whole, last):
                y[m, c] += part[c - whole]


@njit(fastmath=FUSED)
def _multiply_some_rows(x, weight, scales, start, y):
    """y[:, start : start + ROWS], fewer at the end, of multiply_rows."""
    M, whole = x.shape[0], x.shape[1] - x.shape[1] % COLUMNS
    stop = min(start + ROWS, y.shape[1])
    if stop < start + ROWS:
        y[:, start:] = _ZERO
        whole = 0
    else:
        m = 0
        while HAS_32_REGISTERS and m + 4 <= M:
            dot_rows_4(x, weight, m, start, whole, y)
            m += 4
        while HAS_32_REGISTERS and m + 2 <= M:
            dot_rows_2(x, weight, m, start, whole, y)
            m += 2
        while m < M:
            dot_rows_1(x, weight, m, start, whole, y)
            m += 1
    for m in range(M):
        for o in range(start, stop):
            total = y[m, o]
            for i in range(whole, x.shape[1]):
                total += x[m, i] * number(weight[o, i])
            y[m, o] = total * scales[o]
