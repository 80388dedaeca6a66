"""Three words that numba's Python lacks: sums of products of small whole numbers, powers of two, a barrier.

Each is a few instructions of LLVM's intermediate language. The vectors have 256 bits: what every x86 of the last ten
years has (AVX2); where there is more, LLVM joins a product and its sum into one instruction (VNNI).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

#: Looks at a barrier between two offers of the processor to others.
_PATIENCE = 4096


def words() -> tuple[Any, Any, Any]:
    """``dots``, ``power`` and ``meet``.

    ``dots(w int8, at, x int16, one, two, count)`` gives two int32, the sums of w[at + k] x[one + k] and of
    w[at + k] x[two + k]; count is a multiple of 32. ``power(n int32)`` is 2^n float32, n in -126 ... 127.
    ``meet(sync int64 [1], size)`` returns when as many threads have called it; sync begins at 0.
    """
    import numba
    from numba.extending import intrinsic

    word: Callable[[Callable[..., Any]], Any] = intrinsic
    types: Any = numba.types

    @word
    def dots(_: Any, w: Any, at: Any, x: Any, one: Any, two: Any, count: Any) -> Any:
        return types.UniTuple(types.int32, 2)(w, at, x, one, two, count), _dots

    @word
    def power(_: Any, n: Any) -> Any:
        return types.float32(n), _power

    @word
    def enter(_: Any, sync: Any) -> Any:
        return types.int64(sync), _enter

    @word
    def look(_: Any, sync: Any) -> Any:
        return types.int64(sync), _look

    rest = _rest()

    def meet(sync: Any, size: int) -> None:
        if size > 1:
            everybody, looks = (enter(sync) // size + 1) * size, 0
            while look(sync) < everybody:
                looks += 1
                if looks % _PATIENCE == 0:
                    rest()

    return dots, power, numba.njit(nogil=True, error_model="numpy")(meet)


def _rest() -> Callable[[], int]:
    """The system's call that lets another thread run."""
    import os

    found: Any = ctypes.CDLL(None).sched_yield if os.name == "posix" else ctypes.windll.kernel32.SwitchToThread  # type: ignore[attr-defined]
    found.argtypes, found.restype = (), ctypes.c_int
    return found  # type: ignore[no-any-return]


def _dots(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    from llvmlite import ir
    from numba.core import cgutils, types

    tools: Any = cgutils
    byte, short, word, long = (ir.IntType(bits) for bits in (8, 16, 32, 64))
    bytes_, shorts, sums = ir.VectorType(byte, 16), ir.VectorType(short, 16), ir.VectorType(word, 8)
    weights, x = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 2))
    at, one, two, count = (context.cast(builder, args[i], signature.args[i], types.int64) for i in (1, 3, 4, 5))
    module = builder.module
    pairs = tools.get_or_insert_function(module, ir.FunctionType(sums, [shorts] * 2), "llvm.x86.avx2.pmadd.wd")
    whole = tools.get_or_insert_function(module, ir.FunctionType(word, [sums]), "llvm.vector.reduce.add.v8i32")
    nothing = ir.Constant(sums, [0] * 8)
    # two sums each for both rows: an addition need not wait for the one before it
    kept = [tools.alloca_once(builder, sums) for _ in range(4)]
    for place in kept:
        builder.store(nothing, place)

    def load(base: Any, offset: Any, kind: Any) -> Any:
        found = builder.load(builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()))
        found.align = 1
        return found

    with tools.for_range(builder, builder.sdiv(count, long(32)), intp=long) as loop:
        for half in range(2):
            k = builder.add(builder.mul(loop.index, long(32)), long(16 * half))
            line = builder.sext(load(weights, builder.add(at, k), bytes_), shorts)
            for row, base in enumerate((one, two)):
                place = kept[2 * half + row]
                more = builder.call(pairs, [line, load(x, builder.add(base, k), shorts)])
                builder.store(builder.add(builder.load(place), more), place)
    found = [
        builder.call(whole, [builder.add(builder.load(kept[row]), builder.load(kept[2 + row]))]) for row in range(2)
    ]
    return context.make_tuple(builder, signature.return_type, found)


def _power(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    from llvmlite import ir
    from numba.core import types

    word = ir.IntType(32)
    n = context.cast(builder, args[0], signature.args[0], types.int32)
    return builder.bitcast(builder.shl(builder.add(n, word(127)), word(23)), ir.FloatType())


def _enter(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    from llvmlite import ir

    place = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.atomic_rmw("add", place, ir.IntType(64)(1), "seq_cst")


def _look(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    from llvmlite import ir
    from numba.core import cgutils

    tools: Any = cgutils
    pause = tools.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause")
    builder.call(pause, [])
    place = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.load_atomic(place, "seq_cst", 8)
