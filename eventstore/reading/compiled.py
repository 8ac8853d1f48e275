"""How the read side's functions are compiled: as the machine's are, and kept under a name of the
machine's sources and these.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from eventstore.machine import compiled as machine
from eventstore.machine.compiled import Function, Number, Truth, Word, inlined, njit, types
from ledger import chain

__all__ = ["Function", "Number", "Truth", "Word", "compiled", "inlined", "types"]

_MACHINE = Path(machine.__file__).parent
_HERE = Path(__file__).parent


def hash_of_sources() -> str:
    """One name for all that this room's compiled code is made from."""
    digest = sha256(machine.hash_of_sources(_MACHINE).encode())
    for path in (*sorted(_HERE.glob("*.py")), Path(chain.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_SOURCES = hash_of_sources()


def compiled(signature: Any, variant: str = "") -> Callable[[Function], Function]:
    """Compile for these types, without the interpreter's lock, and keep the result. `variant` tells
    apart what the same sources give on different machines.
    """

    def decorate(function: Function) -> Function:
        function.__qualname__ = f"{function.__qualname__}.{_SOURCES}{variant}"
        made: Function = njit(signature, nogil=True, cache=True, _nrt=False)(function)
        return made

    return decorate
