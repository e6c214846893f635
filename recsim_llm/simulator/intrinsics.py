"""Two things that compiled Python does not say: a vector dot product, and a request for memory ahead of its use.

Both are generic instructions of LLVM, made for whatever processor there is; neither can change a result. Each has a
plain form, which is what it means and what runs where nothing is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils as _cgutils
from numba.core import types
from numba.extending import intrinsic

from recsim_llm.simulator.jit import COMPILED

cgutils: Any = _cgutils
ir: Any = cgutils.ir

CHUNK = 32
"""Numbers multiplied at once; rows of codes are padded to a multiple of it."""

LINE_OF_MEMORY = 64
HALF, WORD, BYTE = ir.IntType(16), ir.IntType(32), ir.IntType(8)


def _plain_dot(a: Any, b: Any) -> np.int32:
    """Exact dot product of two int16 rows, as long as a multiple of CHUNK."""
    return np.int32((a.astype(np.int64) * b).sum())


def _plain_fetch(array: Any, index: int) -> None:
    """Asks for the memory of ``array[index]`` before it is needed. Changes nothing, whatever the index is."""


def _dot(typing_context: Any, a: Any, b: Any) -> Any:
    for array in (a, b):
        if not isinstance(array, types.Array) or array.dtype != types.int16 or array.layout != "C" or array.ndim != 1:
            return None
    return types.int32(a, b), _dot_code


def _dot_code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    left, right = (
        context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, arguments, strict=True)
    )
    length = cgutils.unpack_tuple(builder, left.shape, 1)[0]
    halves, words, sums = (ir.VectorType(HALF, CHUNK), ir.VectorType(WORD, CHUNK), ir.VectorType(WORD, CHUNK // 2))
    total = cgutils.alloca_once_value(builder, ir.Constant(sums, [0] * (CHUNK // 2)))
    # Sums of neighbours: what the instruction for these products gives.
    even, odd = (ir.Constant(ir.VectorType(WORD, CHUNK // 2), list(range(first, CHUNK, 2))) for first in (0, 1))
    nothing = ir.Constant(words, ir.Undefined)
    with cgutils.for_range_slice(builder, length.type(0), length, length.type(CHUNK)) as (at, _):
        a, b = (
            builder.sext(
                builder.load(builder.bitcast(builder.gep(array.data, [at]), halves.as_pointer()), align=2), words
            )
            for array in (left, right)
        )
        product = builder.mul(a, b)
        pairs = builder.add(
            builder.shuffle_vector(product, nothing, even), builder.shuffle_vector(product, nothing, odd)
        )
        builder.store(builder.add(builder.load(total), pairs), total)
    name = f"llvm.vector.reduce.add.v{CHUNK // 2}i32"
    reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(WORD, [sums]), name)
    return builder.call(reduce, [builder.load(total)])


def _fetch(typing_context: Any, array: Any, index: Any) -> Any:
    return types.void(array, index), _fetch_code


def _fetch_code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    stride = cgutils.unpack_tuple(builder, array.strides, signature.args[0].ndim)[0]
    start = builder.gep(
        builder.bitcast(array.data, BYTE.as_pointer()), [builder.mul(stride, builder.sext(arguments[1], stride.type))]
    )
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), WORD, WORD, WORD])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    size = array.itemsize  # of a row without what stands between rows
    for number in cgutils.unpack_tuple(builder, array.shape, signature.args[0].ndim)[1:]:
        size = builder.mul(size, number)
    with cgutils.for_range_slice(builder, size.type(0), size, size.type(LINE_OF_MEMORY)) as (at, _):
        builder.call(function, [builder.gep(start, [at]), WORD(0), WORD(3), WORD(1)])  # to read, to keep, data
    return context.get_dummy_value()


dot_of_codes: Any = intrinsic(_dot) if COMPILED else _plain_dot
fetch_row: Any = intrinsic(_fetch) if COMPILED else _plain_fetch
