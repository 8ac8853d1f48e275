"""How the machine's functions are compiled, and the one instruction that numba does not offer.

`compiled` is for what Python calls: with its types, so that it is compiled once, when it is
imported, and kept on disk (in `__pycache__`; NUMBA_CACHE_DIR names another folder). `inlined` is
for what is called by that alone, and becomes part of it.

Neither counts references to arrays (`_nrt`): Python holds them for as long as a call lasts, and
counting took twice the time of all the rest. So no array can be made in such a function.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from numba import njit as numba_njit
from numba import types as numba_types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

from ledger import model

Function = TypeVar("Function", bound=Callable[..., Any])

# What compiled functions compute with: 64 bits without a sign, and with one, and one bit. To mypy
# these are anything, since numba goes by the types of `compiled`, and what follows from them.
Word = Any
Number = Any
Truth = Any
types: Any = numba_types
njit: Any = numba_njit
_cgutils: Any = numba_cgutils
_ir = _cgutils.ir

# What a frame's commands come in: bytes that may not be written to.
WORDS = types.Array(types.uint64, 2, "C", readonly=True)
# The texts of a frame.
BYTES = types.Array(types.uint8, 1, "C", readonly=True)


def hash_of_sources(folder: Path) -> str:
    """One name for all that compiled code is made from: this folder, the shapes of rows, and the
    limits of balances.
    """
    digest = sha256()
    limits = Path(model.__file__)
    for path in [*sorted(folder.glob("*.py")), folder.parent / "rows.py", limits]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_SOURCES = hash_of_sources(Path(__file__).parent)


def compiled(signature: Any) -> Callable[[Function], Function]:
    """Compile for these types, without the interpreter's lock, and keep the result.

    It is kept under a name with the hash of all sources: numba itself would look for changes in the
    file of this function alone, not in those of the functions that it calls, and go on running old
    rules.
    """

    def decorate(function: Function) -> Function:
        function.__qualname__ = f"{function.__qualname__}.{_SOURCES}"
        made: Function = njit(signature, nogil=True, cache=True, _nrt=False)(function)
        return made

    return decorate


def inlined(function: Function) -> Function:
    """Compile as a part of whatever calls it."""
    made: Function = njit(nogil=True, forceinline=True, _nrt=False)(function)
    return made


def called(function: Function) -> Function:
    """Compile with whatever calls it, and leave it apart: for what is rare, and would make a loop
    that is run often slower.
    """
    made: Function = njit(nogil=True, _nrt=False)(function)
    return made


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """`prefetch(array, index)`: begin to fetch the cache line of the element that stands at `index`
    when the array is taken as flat. Changes nothing, whatever the index is.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = _ir.IntType(8).as_pointer()
        number = _ir.IntType(32)
        address = builder.bitcast(builder.gep(made.data, [arguments[1]]), pointer)
        kind = _ir.FunctionType(_ir.VoidType(), [pointer, number, number, number])
        function = _cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        for_writing, into_all_caches, data = number(1), number(3), number(1)
        builder.call(function, [address, for_writing, into_all_caches, data])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


prefetch: Any = intrinsic(_prefetch)


def _address_of_word(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    made = context.make_array(signature.args[0])(context, builder, arguments[0])
    pointer = _ir.IntType(64).as_pointer()
    return builder.bitcast(builder.gep(made.data, [arguments[1]]), pointer)


def _word_at(typing_context: Any, array: Any, at: Any) -> Any:
    """`word_at(array, at)`: the eight bytes of an array of bytes from `at` on, as one little-endian
    word. All of them must be there.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address_of_word(context, builder, signature, arguments), align=1)

    return types.uint64(array, types.uint64), generate


def _put_word(typing_context: Any, array: Any, at: Any, word: Any) -> Any:
    """`put_word(array, at, word)`: put a word where `word_at` reads it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address_of_word(context, builder, signature, arguments)
        builder.store(arguments[2], address, align=1)
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), generate


word_at: Any = intrinsic(_word_at)
put_word: Any = intrinsic(_put_word)
