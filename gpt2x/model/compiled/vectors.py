"""The inner loops of the products, as vectors of float32 that are written out.

Left to itself, the compiler takes vectors of half the size that AVX-512 has, and fetches nothing ahead: with the
124M model on two cores, steps of one text took 1.2, 1.3 and 1.6 times as long in float32, in 16 bits and in 8. A CPU
with shorter vectors takes several for one of these.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt2x.model.compiled.numbers import as_float

COLUMNS = 32  # what is computed at once, in two vectors
_LANES = 16
_PLACES = range(0, COLUMNS, _LANES)
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_LINE = 64  # bytes of a cache line
IS_ZEN = get_host_cpu_name().startswith("znver")
"""Whether the CPU is one of AMD's since 2017, which read memory fastest in another way than Intel's."""
# So many bytes ahead of the computation, and into which cache, the memory is told what will be needed; caches as LLVM's
# prefetch counts them: 3 is the nearest, 2 the next. The nearest of Zen 4 has 8 places for lines whose addresses differ
# by multiples of 4,096 bytes, as they do in the rows of a weight: what is fetched for later displaces what is needed
# now. With 3, steps of 1 and 8 texts in float32 took 1.1 and 1.5 times as long.
_AHEAD, _CACHE = (4096, 2) if IS_ZEN else (512, 3)
HAS_32_REGISTERS = bool(get_host_cpu_features().get("avx512f"))
"""Whether the sums of 8 tokens fit in the registers. Else those of 2 do, or of 1 where the weight is [out, in]."""

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


@intrinsic
def copy_panel(context: Any, weight: Any, start: Any, stop: Any, column: Any, panel: Any) -> Any:
    """copy_panel(weight, start, stop, column, panel): panel[i] = weight[start + i, column : column + COLUMNS].

    For start <= start + i < stop; weight [in, out], panel [n, COLUMNS] of float32.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        weight, start, stop, column, panel = args
        matrix = _Matrix(context, builder, signature.args[0], weight)
        out = _Matrix(context, builder, signature.args[-1], panel)
        with cgutils.for_range_slice(builder, start, stop, _I64(1)) as (row, _):
            vectors = matrix.vectors(builder.add(matrix.start(row), column))
            at = out.start(builder.sub(row, start))
            for place, vector in zip(_PLACES, vectors, strict=True):
                builder.store(vector, out.pointer(builder.add(at, _I64(place))), align=4)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(weight, i64, i64, i64, panel), generate


def _tile(tokens: int, of_panel: bool = False) -> Any:
    at_once = 4 if of_panel else 1  # rows per turn of the loop; more are slower where rows come from memory

    @intrinsic
    def add_tile(
        context: Any, x: Any, weight: Any, y: Any, token: Any, start: Any, row: Any, column: Any, count: Any, to: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            inputs, matrix, out = (
                _Matrix(context, builder, kind, value) for kind, value in zip(signature.args, args[:3], strict=False)
            )
            token, start, row, column, count, to = args[3:]
            places = [builder.add(inputs.start(builder.add(token, _I64(t))), start) for t in range(tokens)]
            sums = _zeros(builder, tokens * len(_PLACES))
            with cgutils.for_range_slice(builder, _I64(0), count, _I64(at_once)) as (first, _):
                for i in (builder.add(first, _I64(k)) for k in range(at_once)):
                    here = builder.add(matrix.start(builder.add(row, i)), column)
                    if not of_panel:
                        matrix.prefetch(builder.add(here, matrix.start(count)))
                    vectors = list(matrix.vectors(here))
                    for t, place in enumerate(places):
                        factor = _splat(builder, builder.load(builder.gep(inputs.data, [builder.add(place, i)])))
                        _add_to(builder, sums[t * len(_PLACES) :], factor, vectors)
            values = iter([builder.load(variable) for variable in sums])
            for t in range(tokens):
                at = builder.add(out.start(builder.add(token, _I64(t))), to)
                for each in _PLACES:
                    target = builder.add(at, _I64(each))
                    builder.store(builder.fadd(out.vector(target), next(values)), out.pointer(target), align=4)
            return context.get_dummy_value()

        i64 = types.int64
        return types.void(x, weight, y, i64, i64, i64, i64, i64, i64), generate

    return add_tile


add_tile_8, add_tile_4, add_tile_2, add_tile_1 = map(_tile, (8, 4, 2, 1))
"""add_tile_n(x, weight, y, token, start, row, column, count, to), for n tokens t, from `token` on, and COLUMNS of c:
y[t, to + c] += the sum of x[t, start + i] * weight[row + i, column + c] over i < count.

x [M, in], weight [in, out], y [M, out]. The products of one token are added up in the order in which add_products does
it.
"""

add_panel_8 = _tile(8, of_panel=True)
"""add_tile_8 for a panel, which is in the cache, in the place of a weight; count is a multiple of 4."""

ROWS = 4  # of a weight [out, in] that are multiplied at the same time


def _dots(tokens: int) -> Any:
    @intrinsic
    def dot_rows(context: Any, x: Any, weight: Any, token: Any, row: Any, stop: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, weight, token, row, stop, y = args
            kinds = signature.args
            inputs, matrix = _Matrix(context, builder, kinds[0], x), _Matrix(context, builder, kinds[1], weight)
            out = _Matrix(context, builder, kinds[-1], y)
            rows = [matrix.start(builder.add(row, _I64(k))) for k in range(ROWS)]
            places = [builder.add(token, _I64(t)) for t in range(tokens)]
            sums = _zeros(builder, tokens * ROWS)
            with cgutils.for_range_slice(builder, _I64(0), stop, _I64(COLUMNS)) as (column, _):
                factors = [list(inputs.vectors(builder.add(inputs.start(place), column))) for place in places]
                for k, start in enumerate(rows):
                    here = builder.add(start, column)
                    matrix.prefetch(builder.add(here, builder.mul(matrix.width, _I64(ROWS))))  # the next rows
                    for i, vector in enumerate(matrix.vectors(here)):
                        for t in range(tokens):
                            _add_to(builder, sums[t * ROWS + k :], factors[t][i], [vector])
            for t, place in enumerate(places):
                for k in range(ROWS):
                    target = builder.add(builder.add(out.start(place), row), _I64(k))
                    total = _added_up(builder, builder.load(sums[t * ROWS + k]))
                    builder.store(total, builder.gep(out.data, [target]))
            return context.get_dummy_value()

        i64 = types.int64
        return types.void(x, weight, i64, i64, i64, y), generate

    return dot_rows


dot_rows_4, dot_rows_2, dot_rows_1 = map(_dots, (4, 2, 1))
"""dot_rows_n(x, weight, token, row, stop, y): y[t, o] = the sum of x[t, i] * weight[o, i] over i < stop.

For n tokens t, from `token` on, and ROWS rows o, from `row` on: x [M, in], weight [out, in], y [M, out]. stop is a
multiple of COLUMNS. The products of one token are added up in the same order for all n.
"""


@intrinsic
def dot(context: Any, x: Any, y: Any, stop: Any) -> Any:
    """dot(x, y, stop): the sum of x[i] * y[i] over i < stop, a multiple of COLUMNS; x is float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [_Matrix(context, builder, kind, value) for kind, value in zip(signature.args, args[:2], strict=False)]
        sums = _zeros(builder, len(_PLACES))
        with cgutils.for_range_slice(builder, _I64(0), args[2], _I64(COLUMNS)) as (place, _):
            pairs = zip(*(array.vectors(place) for array in arrays), strict=True)
            for total, (one, other) in zip(sums, pairs, strict=True):
                _add_to(builder, [total], one, [other])
        first, second = (builder.load(variable) for variable in sums)
        return _added_up(builder, builder.fadd(first, second))

    return types.float32(x, y, types.int64), generate


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
        """Has COLUMNS numbers brought into a cache. They may lie outside of the array."""
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
        fetch = self.builder.module.declare_intrinsic("llvm.prefetch", [_BYTES], kind)
        for byte in range(0, COLUMNS * self.size, _LINE):
            pointer = self.builder.gep(self.data, [self.builder.add(place, _I64(byte // self.size))])
            to_read, cache, data = _I32(0), _I32(_CACHE), _I32(1)
            self.builder.call(fetch, [self.builder.bitcast(pointer, _BYTES), to_read, cache, data])


def _zeros(builder: Any, count: int) -> list[Any]:
    """Variables for sums of vectors."""
    variables = [cgutils.alloca_once(builder, _VECTOR) for _ in range(count)]
    for variable in variables:
        builder.store(ir.Constant(_VECTOR, [0.0] * _LANES), variable)
    return variables


def _add_to(builder: Any, sums: Sequence[Any], factor: Any, vectors: Sequence[Any]) -> None:
    """Adds the products of a factor and the vectors to as many of the sums."""
    for variable, vector in zip(sums, vectors, strict=False):
        builder.store(_fused(builder, builder.load(variable), factor, vector), variable)


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
        order = [(lane + lanes) % _LANES for lane in range(_LANES)]
        other = builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_I32, _LANES), order))
        vector = builder.fadd(vector, other)
    return builder.extract_element(vector, _I32(0))
