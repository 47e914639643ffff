"""The inner loops of the products, as vectors of float32 that are written out.

Left to itself, the compiler takes vectors of half the size that AVX-512 has, and fetches nothing ahead: with the
124M model on two cores, steps took 1.05, 1.7 and 1.9 times as long in float32, in 16 bits and in 8. A CPU with shorter
vectors takes several for one of these.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt2x.model.compiled.numbers import as_float

COLUMNS = 32  # what is computed at once, in two vectors
_LANES = 16
_PLACES = range(0, COLUMNS, _LANES)
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_AHEAD = 512  # bytes: so far ahead of the computation, the memory is told what will be needed
_LINE = 64  # bytes of a cache line
_FUSED = ("contract",)  # a product and a sum may become one instruction
_I64, _I32, _BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


@intrinsic
def add_products(context: Any, x: Any, weight: Any, row: Any, column: Any, y: Any) -> Any:
    """add_products(x, weight, row, column, y): y[c] += the sum of x[k] * weight[row + k, c], for COLUMNS of c.

    x is a tuple of n float32, weight [in, out], y [out].
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, weight, row, column, y = args
        matrix = _Matrix(context, builder, signature.args[1], weight)
        out = _Matrix(context, builder, signature.args[4], y)
        sums = [out.vector(builder.add(column, _I64(place))) for place in _PLACES]
        for k in range(signature.args[0].count):
            factor = _splat(builder, builder.extract_value(x, k))
            start = builder.add(matrix.start(builder.add(row, _I64(k))), column)
            matrix.prefetch(builder.add(start, _I64(_AHEAD // matrix.size)))
            vectors = matrix.vectors(start)
            sums = [_fused(builder, total, factor, vector) for total, vector in zip(sums, vectors, strict=True)]
        for place, total in zip(_PLACES, sums, strict=True):
            builder.store(total, out.pointer(builder.add(column, _I64(place))), align=4)
        return context.get_dummy_value()

    return types.void(x, weight, types.int64, types.int64, y), generate


ROWS = 4  # of a weight [out, in] that are multiplied at the same time


@intrinsic
def dot_rows(context: Any, x: Any, weight: Any, row: Any, stop: Any) -> Any:
    """dot_rows(x, weight, row, stop): the products of ROWS rows of weight [out, in] with x [in], as a tuple.

    Only of the columns up to stop, a multiple of COLUMNS.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, weight, row, stop = args
        factors = _Matrix(context, builder, signature.args[0], x)
        matrix = _Matrix(context, builder, signature.args[1], weight)
        sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(ROWS * len(_PLACES))]
        for variable in sums:
            builder.store(ir.Constant(_VECTOR, [0.0] * _LANES), variable)
        starts = [matrix.start(builder.add(row, _I64(k))) for k in range(ROWS)]
        with cgutils.for_range_slice(builder, _I64(0), stop, _I64(COLUMNS)) as (column, _):
            inputs = list(factors.vectors(column))
            for k, start in enumerate(starts):
                here = builder.add(start, column)
                matrix.prefetch(builder.add(here, builder.mul(matrix.width, _I64(ROWS))))  # the next rows
                for place, vector in enumerate(matrix.vectors(here)):
                    variable = sums[k * len(_PLACES) + place]
                    builder.store(_fused(builder, builder.load(variable), inputs[place], vector), variable)
        values = [builder.load(variable) for variable in sums]
        pairs = zip(values[::2], values[1::2], strict=True)
        totals = [_added_up(builder, builder.fadd(first, second)) for first, second in pairs]
        return context.make_tuple(builder, signature.return_type, totals)

    return types.UniTuple(types.float32, ROWS)(x, weight, types.int64, types.int64), generate


class _Matrix:
    """A contiguous array, of one or two dimensions, whose numbers are read as vectors of float32."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self.builder, self.stored = builder, kind.dtype
        array = context.make_array(kind)(context, builder, value)
        self.data, self.width = array.data, builder.extract_value(array.shape, kind.ndim - 1)
        self.size = kind.dtype.bitwidth // 8
        """Bytes of a number."""

    def start(self, row: Any) -> Any:
        """The place of the first number of a row."""
        return self.builder.mul(row, self.width)

    def pointer(self, place: Any) -> Any:
        pointer = self.builder.gep(self.data, [place])
        return self.builder.bitcast(pointer, ir.VectorType(self.data.type.pointee, _LANES).as_pointer())

    def vector(self, place: Any) -> Any:
        return as_float(self.builder, self.builder.load(self.pointer(place), align=self.size), self.stored)

    def vectors(self, place: Any) -> Iterator[Any]:
        """COLUMNS numbers, in vectors."""
        for each in _PLACES:
            yield self.vector(self.builder.add(place, _I64(each)))

    def prefetch(self, place: Any) -> None:
        """Has COLUMNS numbers brought into the cache. They may lie outside of the array."""
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
        fetch = self.builder.module.declare_intrinsic("llvm.prefetch", [_BYTES], kind)
        for byte in range(0, COLUMNS * self.size, _LINE):
            pointer = self.builder.gep(self.data, [self.builder.add(place, _I64(byte // self.size))])
            to_read, in_all_caches, data = _I32(0), _I32(3), _I32(1)
            self.builder.call(fetch, [self.builder.bitcast(pointer, _BYTES), to_read, in_all_caches, data])


def _fused(builder: Any, total: Any, one: Any, other: Any) -> Any:
    return builder.fadd(total, builder.fmul(one, other, flags=_FUSED), flags=_FUSED)


def _splat(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, _LANES), [0] * _LANES))


def _added_up(builder: Any, vector: Any) -> Any:
    """The sum of the numbers in a vector: halves are added until one number is left."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lanes = _LANES
    while lanes > 1:
        lanes //= 2
        order: Sequence[int] = [(lane + lanes) % _LANES for lane in range(_LANES)]
        other = builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_I32, _LANES), list(order)))
        vector = builder.fadd(vector, other)
    return builder.extract_element(vector, _I32(0))
