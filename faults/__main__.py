"""Runs a test build of a coordinator: see the package."""

import logging
import os
import secrets
import sys

from coordinator import __main__ as product
from coordinator.settings import Log
from coordinator.telemetry import logs
from faults import clock, points
from faults.plan import FaultsError, parse

log = logging.getLogger("faults")


def main() -> int:
    logs.configure(Log(), os.environ.get("TANDEM_COORDINATOR_ID", ""))
    # Gone from the environment, or the product would refuse to start.
    faults = os.environ.pop("TANDEM_FAULTS", "")
    bug = os.environ.pop("TANDEM_PLANT", "")
    try:
        plan = parse(faults, points.traits(), seed=secrets.randbits(32))
        # The bug first: faults are around it, as around what is right.
        if bug:
            points.plant(bug)
        points.weave(plan)
    except FaultsError as error:
        print(f"tandem test build: {error}", file=sys.stderr)
        return 2
    points.await_thaw()
    if folder := os.environ.get("TANDEM_COORDINATOR_SCRATCH_DIR"):
        clock.follow(folder)
    os.register_at_fork(before=plan.begin_life)
    what = f"{bug}: {points.PLANTS[bug].what}" if bug else "none"
    log.critical(
        "THIS IS A TEST BUILD: it breaks things on purpose. Never let it near money. "
        "Faults: seed=%d; %s. Planted bug: %s",
        plan.seed,
        "; ".join(map(str, plan.faults)) or "none",
        what,
        extra={"event": "fault.test_build"},
    )
    return product.main()


if __name__ == "__main__":
    sys.exit(main())
