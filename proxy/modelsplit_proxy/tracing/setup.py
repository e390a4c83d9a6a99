"""Whether this process traces, and what it needs for it."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.runtime import extras

if TYPE_CHECKING:
    from modelsplit_proxy.config.settings import Settings
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.tracing.otlp import OtlpTraces

_PACKAGE: Final = "opentelemetry"


def traces(settings: Settings, clock: Clock) -> OtlpTraces | None:
    """None: nobody asked for traces. Raises SettingError where the extra is not installed."""
    if not settings.otlp_endpoint:
        return None
    if find_spec(_PACKAGE) is None:
        raise SettingError(f"--otlp-endpoint needs OpenTelemetry: {extras.adding('otel')}")
    # The package is an optional one, and large.
    from modelsplit_proxy.tracing.otlp import OtlpTraces  # noqa: PLC0415

    return OtlpTraces(settings.otlp_endpoint, settings.upstream, version("modelsplit"), clock)
