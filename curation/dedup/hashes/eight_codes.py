"""Eight 64-bit words side by side in one register, for numba: comparing one code with eight others at a time.

numba's loops count ones in half a register (LLVM prefers 256 bits on processors that have 512), and compare counts
where taking a minimum would do. LLVM's own vector type makes the widest registers the processor has; on others it
becomes several narrower ones.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8

_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
_WORDS, _BYTES = ir.VectorType(_WORD, LANES), ir.VectorType(_BYTE, 8 * LANES)


class EightWords(types.Type):
    """The type of a value of eight 64-bit words."""

    def __init__(self) -> None:
        super().__init__(name="EightWords")


_EIGHT = EightWords()


@register_model(EightWords)
class _InOneRegister(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WORDS)


@intrinsic
def spread(_typing, word):  # type: ignore[no-untyped-def]
    """One uint64 in all lanes."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return _spread(builder, arguments[0])

    return _EIGHT(types.uint64), build


@intrinsic
def word_at(_typing, address):  # type: ignore[no-untyped-def]
    """The uint64 at an address."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(builder.inttoptr(arguments[0], _WORD.as_pointer()), align=8)

    return types.uint64(types.intp), build


@intrinsic
def eight_at(_typing, address):  # type: ignore[no-untyped-def]
    """The eight words from an address on."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(builder.inttoptr(arguments[0], _WORDS.as_pointer()), align=8)

    return _EIGHT(types.intp), build


@intrinsic
def put_word(_typing, address, word):  # type: ignore[no-untyped-def]
    """Write an int64 to an address."""

    def build(context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[1], builder.inttoptr(arguments[0], _WORD.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), build


@intrinsic
def ones_apart(_typing, left, right):  # type: ignore[no-untyped-def]
    """In how many bits the words differ, lane by lane."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return _ones(builder, builder.xor(*arguments))

    return _EIGHT(left, right), build


@intrinsic
def ones_apart_among(_typing, left, right, among):  # type: ignore[no-untyped-def]
    """In how many of the bits `among` the words differ, lane by lane."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        left, right, among = arguments
        return _ones(builder, builder.and_(builder.xor(left, right), among))

    return _EIGHT(left, right, among), build


@intrinsic
def add_eight(_typing, left, right):  # type: ignore[no-untyped-def]
    """The sums, lane by lane."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.add(*arguments)

    return _EIGHT(left, right), build


@intrinsic
def lower_counts(_typing, left, right):  # type: ignore[no-untyped-def]
    """The lower of two counts below 256, lane by lane: as bytes, which takes half as long as 64-bit numbers."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        left, right = (builder.bitcast(eight, _BYTES) for eight in arguments)
        lower = builder.select(builder.icmp_unsigned("<", left, right), left, right)
        return builder.bitcast(lower, _WORDS)

    return _EIGHT(left, right), build


@intrinsic
def lanes_within(_typing, counts, most):  # type: ignore[no-untyped-def]
    """A bit for each lane, lowest first, whose count is at most `most` (uint64), as int64."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        counts, most = arguments
        within = builder.icmp_unsigned("<=", counts, _spread(builder, most))
        return builder.zext(builder.bitcast(within, ir.IntType(LANES)), _WORD)

    return types.int64(counts, types.uint64), build


@intrinsic
def ones(_typing, word):  # type: ignore[no-untyped-def]
    """Number of ones of a uint64, as int64: compared as uint64 with an int64, numba would go through float64."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), build


@intrinsic
def lowest_one(_typing, word):  # type: ignore[no-untyped-def]
    """The place of the lowest one of an int64 that is not 0."""

    def build(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


def _ones(builder: Any, words: Any) -> Any:
    kind = ir.FunctionType(_WORDS, [_WORDS])
    count = cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.v{LANES}i64")
    return builder.call(count, [words])


def _spread(builder: Any, word: Any) -> Any:
    first = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), word, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(_WORDS, ir.Undefined), zeros)
