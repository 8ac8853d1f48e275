"""When traces are made, and what happens without OpenTelemetry."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from coordinator.settings import Settings, Tracing
from coordinator.telemetry.otel import OtelTracer
from coordinator.telemetry.tracers import tracer
from coordinator.telemetry.tracing import Tracer

ENDPOINT = "http://127.0.0.1:9/v1/traces"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(params=[0.0, 1.0], ids=["none", "all"])
def ratio(request: pytest.FixtureRequest) -> float:
    return request.param


@pytest.fixture
def made(ratio: float) -> Iterator[Tracer]:
    made = tracer(Settings(tracing=Tracing(ENDPOINT, ratio)), "c1-00000001")
    yield made
    made.stop()


def test_the_ratio_decides_for_those_without_a_caller(made: Tracer, ratio: float) -> None:
    assert isinstance(made, OtelTracer)
    span = made.begin_request("GET", "/v1/balances", None, None)
    assert (span is not None) is (ratio == 1)


@pytest.mark.parametrize("is_sampled", [True, False])
def test_the_caller_decides_if_there_is_one(made: Tracer, is_sampled: bool) -> None:
    parent = f"00-{TRACE}-{CALLER}-0{int(is_sampled)}"
    span = made.begin_request("GET", "/v1/balances", parent, "vendor=1")
    assert (span is not None) is is_sampled
    if span:
        assert f"{span.get_span_context().trace_id:032x}" == TRACE


def test_a_broken_caller_is_none(made: Tracer, ratio: float) -> None:
    span = made.begin_request("GET", "/v1/balances", "00-nonsense", None)
    assert (span is not None) is (ratio == 1)


def test_without_an_endpoint_nothing_is_imported() -> None:
    run = _python(
        "import sys, coordinator.__main__\n"
        "from coordinator.settings import Settings\n"
        "from coordinator.telemetry.tracers import tracer\n"
        "assert not tracer(Settings(), 'c1-00000001').is_on\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    assert run.returncode == 0, run.stderr


def test_without_the_package_it_refuses_to_start() -> None:
    run = _python(
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from coordinator.__main__ import main\n"
        "sys.exit(main())",
        TANDEM_TRACING_ENDPOINT=ENDPOINT,
    )
    assert run.returncode == 2
    assert run.stderr.startswith(f"tandem: tracing.endpoint = '{ENDPOINT}' cannot be used")
    assert "pip install 'tandem[tracing]'" in run.stderr


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
