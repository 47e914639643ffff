"""Numbers as they lie in memory, for compiled code: arrays by address, 16-bit floats, and an exponential.

numba computes neither with bfloat16 nor, on a CPU, with float16. Arrays of them are passed as integers of 16 bits:
uint16 stands for bfloat16, and int16 for float16. int8 weights are whole numbers, which the caller scales.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# What the compiler may do: fuse a product with a sum. It may not change the order of sums, as it does that differently
# from one compilation to the next.
FUSED = {"contract"}

_LOG2_E = np.float32(1.442695041)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2
_HALF, _ONE = np.float32(0.5), np.float32(1)
_SMALLEST, _LARGEST = np.float32(-87.3), np.float32(88.0)  # their exponentials are normal numbers


@intrinsic
def pointer(context: Any, address: Any, like: Any) -> Any:
    """pointer(address, like): a pointer to numbers of the kind that the array `like` has, for numba.carray."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), generate


def as_float(builder: Any, value: Any, stored: Any) -> Any:
    """Code for the float32 of a number, or of each in a vector, that is stored as `stored`: see `number`."""

    def wide(kind: Any) -> Any:
        return ir.VectorType(kind, value.type.count) if isinstance(value.type, ir.VectorType) else kind

    to = wide(ir.FloatType())
    if stored == types.float32:
        return value
    if stored == types.int8:
        return builder.sitofp(value, to)
    if stored == types.int16:
        return builder.fpext(builder.bitcast(value, wide(ir.HalfType())), to)
    bits = builder.zext(value, wide(ir.IntType(32)))
    half = ir.Constant(bits.type, [16] * bits.type.count if isinstance(bits.type, ir.VectorType) else 16)
    return builder.bitcast(builder.shl(bits, half), to)


@intrinsic
def number(context: Any, stored: Any) -> Any:
    """number(stored): the float32 that is stored as float32, as uint16 (bfloat16), int16 (float16) or int8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return as_float(builder, args[0], stored)

    return types.float32(stored), generate


@intrinsic
def rounded(context: Any, value: Any, like: Any) -> Any:
    """rounded(value, like): a float32 as the array `like` stores it, rounded to the nearest number, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if like.dtype == types.float32:
            return args[0]
        if like.dtype == types.int16:
            return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))
        i32 = ir.IntType(32)
        bits = builder.bitcast(args[0], i32)
        last = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        nearest = builder.lshr(builder.add(builder.add(bits, last), i32(0x7FFF)), i32(16))
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.select(is_nan, i32(0x7FC0), nearest), ir.IntType(16))

    return like.dtype(types.float32, like), generate


@intrinsic
def _from_bits(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(fastmath=FUSED, inline="always")
def exp(x: Any) -> Any:
    """e to the power of a float32, to about 1e-7 of its size; a loop over it is compiled to vector instructions.

    Powers below -87.3 and above 88 count as these; NaN and infinity give NaN. The polynomial is that of expf in the
    Cephes library (https://www.netlib.org/cephes/, single/expf.c).
    """
    within = min(max(x, _SMALLEST), _LARGEST)
    n = np.floor(within * _LOG2_E + _HALF)
    r = within - n * _LN_2_HIGH - n * _LN_2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    return p * _from_bits((np.int32(n) + np.int32(127)) << np.int32(23)) + (x - x)
