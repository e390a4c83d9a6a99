"""Spans on their way to a collector, over OTLP/HTTP, by OpenTelemetry's own SDK.

Made where a call has ended and its client has its answer; a thread of the SDK's sends them. A
collector that is slow or away costs a bounded queue of spans, beyond which the oldest are lost.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from modelsplit_proxy.tracing import spans

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from modelsplit_proxy.config.settings import Address
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.clock import Clock

logger = logging.getLogger("modelsplit")

_SDK_LOG: Final = logging.getLogger("opentelemetry")
# How long the end of the process waits for the last spans to be sent.
_LAST_S: Final = 2.0
# The SDK tells of every batch that it could not send.
_TELL_EVERY_S: Final = 60.0
_SAID_MAX: Final = 200


class OtlpTraces:
    """Sends the spans of ended calls to ``endpoint``; a listener of ``CallEnded``.

    ``endpoint``: the URL that takes traces. Headers, sampling and the service's name are the
    environment's, under OpenTelemetry's own names. ``every_s``: how often spans are sent.
    """

    def __init__(
        self, endpoint: str, upstream: Address, version: str, clock: Clock, every_s: float = 5.0
    ) -> None:
        self._upstream: dict[str, str | int] = {
            "server.address": upstream.host,
            "server.port": upstream.port,
        }
        self._told = _Told(endpoint, clock)
        _SDK_LOG.addHandler(self._told)
        _SDK_LOG.propagate = False
        ours = Resource({"service.name": "modelsplit", "service.version": version})
        # What nobody said in the environment is ours to say.
        resource = ours.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=endpoint), schedule_delay_millis=every_s * 1000
            )
        )
        self._tracer: Tracer = self._provider.get_tracer("modelsplit", version)
        self._propagator = TraceContextTextMapPropagator()

    def call_ended(self, record: CallRecord) -> None:
        """The spans of one call, within its client's trace where it told one."""
        parent = self._propagator.extract(record.trace_context or {}, Context())
        whole = spans.of_call(record)
        call = self._begin(whole, SpanKind.SERVER, parent)
        within = set_span_in_context(call, Context())
        for attempt in spans.of_attempts(record):
            asked = self._begin(attempt, SpanKind.CLIENT, within)
            asked.set_attributes(self._upstream)
            asked.end(attempt.ended)
        call.end(whole.ended)

    async def close(self) -> None:
        """Send what is left, if that is soon done."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _LAST_S)
        if not ending.is_alive():  # else it may have something to say yet
            _SDK_LOG.removeHandler(self._told)

    def _begin(self, values: spans.Span, kind: SpanKind, context: Context) -> Span:
        span = self._tracer.start_span(
            values.name,
            context=context,
            kind=kind,
            attributes=values.attributes,
            start_time=values.started,
        )
        for name, moment in values.events:
            span.add_event(name, timestamp=moment)
        if values.error is not None:
            span.set_status(Status(StatusCode.ERROR, values.error))
        return span


class _Told(logging.Handler):
    """Passes on what the SDK says, at most once a minute."""

    def __init__(self, endpoint: str, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._endpoint = endpoint
        self._clock = clock
        self._again_at = 0.0

    def emit(self, record: Any) -> None:
        now = self._clock.now()
        if now >= self._again_at:
            self._again_at = now + _TELL_EVERY_S
            text = record.getMessage()[:_SAID_MAX]
            logger.warning("traces are not taken at %s: %s", self._endpoint, text)
