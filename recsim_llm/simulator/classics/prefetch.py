"""A hint to the processor: what is needed soon. It changes how long a step takes and nothing else."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils as _cgutils
from numba.core import types
from numba.extending import intrinsic

from recsim_llm.simulator.jit import COMPILED, jit

cgutils: Any = _cgutils
ir: Any = cgutils.ir

WRITE, KEEP, DATA = 1, 3, 1
LINE = 16  # float32 in a line of the cache
AHEAD = 4
"""Lanes ahead of the one that is stepped: enough for memory to answer."""


def _build(typing_context: Any, array: Any, index: Any) -> Any:
    """The intrinsic ``llvm.prefetch`` for the place of one number of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        record = context.make_array(kind)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, kind, record, [arguments[1]])
        byte = ir.PointerType(ir.IntType(8))
        number = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [byte], shape)
        builder.call(hint, [builder.bitcast(place, byte), number(WRITE), number(KEEP), number(DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate


def _nothing(array: Any, index: Any) -> None:
    """Run as plain Python there is nothing to hint at."""


_hint: Any = intrinsic(_build) if COMPILED else _nothing


@jit
def expect(row: Any, width: Any) -> None:
    """The first ``width`` numbers of a row will be written soon."""
    for n in range(0, width, LINE):
        _hint(row, n)
