"""What can be measured. To add a load, write its module and name it in LOADS."""

from collections.abc import Callable

from bench.loads.base import Load, Scale
from bench.loads.batches import Batches
from bench.loads.textbook import Textbook
from bench.place import Place

# name -> how it is made of a cluster, the sizes, and the name of the run. The first one is what
# the others are compared with.
LOADS: dict[str, Callable[[Place, Scale, str], Load]] = {
    "textbook": Textbook,
    "batches": Batches,
}
BASELINE = "textbook"
