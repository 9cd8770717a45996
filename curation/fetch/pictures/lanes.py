"""Four float32 side by side in one register, for numba: the channels of a pixel, or four rows.

numba's loops become vectors along contiguous memory only, never across the three channels of one pixel, where
neighbours are three places apart. LLVM's own vector type does it on every processor: SSE on x86, NEON on ARM.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

_FLOATS = ir.VectorType(ir.FloatType(), 4)
_INT, _BYTE = ir.IntType(32), ir.IntType(8)
_UNDEFINED = ir.Constant(_FLOATS, ir.Undefined)
_FUSED = ("contract",)  # multiplied and added in one instruction, where the processor has it


class Lanes(types.Type):
    """The type of a value of four float32."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


_LANES = Lanes()


@register_model(Lanes)
class _InOneRegister(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


@intrinsic
def zeros(_typing):  # type: ignore[no-untyped-def]
    """Four times 0."""

    def build(_context, _builder, _signature, _arguments):  # type: ignore[no-untyped-def]
        return ir.Constant(_FLOATS, [0.0] * 4)

    return _LANES(), build


@intrinsic
def add_weighted(_typing, lanes, values, at, weight):  # type: ignore[no-untyped-def]
    """`lanes` plus `weight` times the four places of the flat float32 array `values` from index `at`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes, values, at, weight = arguments
        place = _place(context, builder, signature.args[1], values, at)
        four = builder.load(builder.bitcast(place, _FLOATS.as_pointer()), align=4)
        weights = builder.insert_element(_UNDEFINED, weight, ir.Constant(_INT, 0))
        weights = builder.shuffle_vector(weights, _UNDEFINED, ir.Constant(ir.VectorType(_INT, 4), [0] * 4))
        return builder.fadd(builder.fmul(four, weights, flags=_FUSED), lanes, flags=_FUSED)

    return _LANES(lanes, values, types.intp, types.float32), build


@intrinsic
def put_lanes(_typing, lanes, values, at):  # type: ignore[no-untyped-def]
    """Write the four lanes into the flat float32 array `values` from index `at`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes, values, at = arguments
        place = _place(context, builder, signature.args[1], values, at)
        builder.store(lanes, builder.bitcast(place, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(lanes, values, types.intp), build


@intrinsic
def put_pixel(_typing, lanes, pixels, at):  # type: ignore[no-untyped-def]
    """Write the first three lanes, which lie from 0 to 255, rounded into the flat uint8 array from index `at`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes, pixels, at = arguments
        _put(context, builder, signature.args[1], pixels, at, builder.trunc(_rounded(builder, lanes), ir.IntType(16)))
        third = builder.add(at, ir.Constant(at.type, 2))
        _put(context, builder, signature.args[1], pixels, third, _byte(builder, _rounded(builder, lanes), 2))
        return context.get_dummy_value()

    return types.void(lanes, pixels, types.intp), build


@intrinsic
def put_down(_typing, lanes, pixels, at, distance):  # type: ignore[no-untyped-def]
    """Write the four lanes, which lie from 0 to 255, rounded, `distance` apart from index `at`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        lanes, pixels, at, distance = arguments
        four = _rounded(builder, lanes)
        for lane in range(4):
            _put(context, builder, signature.args[1], pixels, at, _byte(builder, four, lane))
            at = builder.add(at, distance)
        return context.get_dummy_value()

    return types.void(lanes, pixels, types.intp, types.intp), build


def _rounded(builder: Any, lanes: Any) -> Any:
    """Four lanes rounded half up, as the bytes of one 32-bit number."""
    halves = builder.fadd(lanes, ir.Constant(_FLOATS, [0.5] * 4))
    whole = builder.fptosi(halves, ir.VectorType(_INT, 4))
    return builder.bitcast(builder.trunc(whole, ir.VectorType(_BYTE, 4)), _INT)


def _byte(builder: Any, four: Any, lane: int) -> Any:
    return builder.trunc(builder.lshr(four, ir.Constant(_INT, 8 * lane)), _BYTE)


def _put(context: Any, builder: Any, kind: Any, array: Any, at: Any, value: Any) -> None:
    place = _place(context, builder, kind, array, at)
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    return builder.gep(cgutils.create_struct_proxy(kind)(context, builder, array).data, [at])
