"""What is measured besides the loads. To add a part, write its module and name it in PARTS."""

from bench.parts.base import Part
from bench.parts.batch_sizes import batch_sizes
from bench.parts.counts import counts
from bench.parts.eventstore import eventstore
from bench.parts.growth import growth
from bench.parts.latency import latency
from bench.parts.memory import memory
from bench.parts.neighbours import neighbours
from bench.parts.protocols import protocols
from bench.parts.skew import hot_batches, singles
from bench.parts.smallbank import smallbank

PARTS: dict[str, Part] = {
    "singles": singles,
    "hot": hot_batches,
    "batch-sizes": batch_sizes,
    "protocols": protocols,
    "latency": latency,
    "growth": growth,
    "counts": counts,
    "memory": memory,
    "smallbank": smallbank,
    "neighbours": neighbours,
    "eventstore": eventstore,
}
