"""How the functions that go over whole batches are compiled: as the event store's are, and kept
under a name of these sources too. For them its packages (numba, numpy) must be there.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from eventstore.machine import compiled as machine
from eventstore.machine.compiled import BYTES, Function, Number, Truth, Word, inlined, njit, types

__all__ = ["BYTES", "Number", "Truth", "Word", "compiled", "inlined", "types"]


def hash_of_sources() -> str:
    """One name for all that this room's compiled code is made from."""
    digest = sha256()
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(machine.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_SOURCES = hash_of_sources()


def compiled(signature: Any) -> Callable[[Function], Function]:
    """Compile for these types, without the interpreter's lock, and keep the result."""

    def decorate(function: Function) -> Function:
        function.__qualname__ = f"{function.__qualname__}.{_SOURCES}"
        made: Function = njit(signature, nogil=True, cache=True, _nrt=False)(function)
        return made

    return decorate
