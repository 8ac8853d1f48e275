"""Two-phase commit, Try-Confirm/Cancel and Saga: the same loads by each, on one cluster."""

import secrets

from bench import wrk
from bench.draws import hot, uniform
from bench.loads.base import Load, Scale
from bench.loads.batches import Batches
from bench.loads.singles import CONNECTIONS, Singles
from bench.loads.textbook import Textbook
from bench.parts.base import Outcome, Sizes
from bench.parts.skew import THREADS, finding, measure_all
from bench.place import cluster
from tandem.local.progress import Report

PROTOCOLS = {"xa": "two-phase commit", "tcc": "Try-Confirm/Cancel", "saga": "Saga"}


def protocols(sizes: Sizes, report: Report) -> Outcome:
    """Batches, single requests, and single requests into one hot account by each protocol, beside
    textbook XA.
    """
    program = wrk.find(report)
    scale = Scale(sizes.few_accounts, THREADS, sizes.clients, sizes.batch)
    outcome = Outcome(
        f"Protocols: batches of {sizes.batch:,}, and one transfer for each request on "
        f"{CONNECTIONS} connections; textbook XA {THREADS} threads"
    )
    with cluster(sizes.data_dir, 1, sizes.single_workers, report) as place:
        outcome.measured_on(place)
        outcome.settings["workers"] = place.workers
        name = secrets.token_hex(4)
        loads: dict[str, Load] = {"textbook": Textbook(place, scale, name)}
        for key, title in PROTOCOLS.items():
            loads[f"batches {key}"] = Batches(place, scale, f"{name}b{key}", protocol=key)
            for letter, draw, how in (("s", uniform, title), ("h", hot, f"{title}, hot account")):
                run = f"{name}{letter}{key}"
                loads[f"singles {letter} {key}"] = Singles(
                    place, scale, run, wrk=program, draw=draw, how=how, protocol=key
                )
        found = measure_all(loads, sizes, outcome, report)
        outcome.findings.append(finding(found["textbook"]))
        for key in loads:
            if key != "textbook":
                outcome.findings.append(finding(found[key], found["textbook"]))
    return outcome
