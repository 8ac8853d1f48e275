"""Which tracer a process has: OpenTelemetry is imported only where traces are sent somewhere."""

from importlib.util import find_spec

from coordinator.settings import Settings, SettingsError
from coordinator.telemetry.tracing import Tracer


def check(settings: Settings) -> None:
    """Raises SettingsError if traces are asked for and cannot be made."""
    if settings.tracing.endpoint and not _is_installed():
        raise SettingsError(
            f"tracing.endpoint = {settings.tracing.endpoint!r} cannot be used: OpenTelemetry is "
            "not installed. Install it, pip install 'tandem[tracing]', or leave tracing.endpoint "
            "empty"
        )


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


def tracer(settings: Settings, member: str) -> Tracer:
    """The tracer of the process `member`. To be called after the fork."""
    if not settings.tracing.endpoint:
        return Tracer()
    from coordinator.telemetry.otel import OtelTracer

    return OtelTracer(settings, member)
