"""What ``X-LLM-Telemetry: body`` adds to an answer: one key that tells what the headers cannot.

A stream's headers leave before anyone knows how long it takes. The key ``llm`` stands in its
last object, or in the object that a whole answer is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.quantity import quantity
from modelsplit_proxy.calls import response_headers
from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.protocol.splice import Splice, spliced_whole

if TYPE_CHECKING:
    from modelsplit_proxy.protocol.stream_end import Usage
    from modelsplit_proxy.records.record import CallRecord, Routing
    from modelsplit_proxy.runtime.clock import Clock

# Characters; a name from a client may be as long as its body.
_NAME_MAX: Final = 256


class Telemetry:
    """The key of one attempt's answer. Asked for at the answer's end."""

    def __init__(self, record: CallRecord, routing: Routing, clock: Clock) -> None:
        self._record = record
        self._routing = routing
        self._clock = clock

    def stream(self) -> Splice:
        """For an answer that passes on as it comes."""
        return Splice(self._record.endpoint.wire, self._added)

    def whole(self, body: bytes) -> bytes:
        """A held answer whose usage the record knows, with the key."""
        return spliced_whole(body, self._value())

    def _added(self, usage: Usage) -> bytes:
        self._record.attempts[-1].usage = usage
        return self._value()

    def _value(self) -> bytes:
        return tellable.dumps(fields(self._record, self._routing, self._clock.now()))


def fields(record: CallRecord, routing: Routing, now: float) -> dict[str, Any]:
    """The content of the key; ``now``: the monotonic second at which the answer ends."""
    last, usage = record.attempts[-1], record.usage
    return {
        "request_id": record.request_id,
        "role": routing.role,
        "context": routing.context,
        "provider": routing.provider,
        "requested_model": record.requested_model[:_NAME_MAX],
        "model": record.model[:_NAME_MAX],
        "attempt": record.attempt_number,
        "fallback_used": record.fallback_used,
        "route_reason": response_headers.route_reason(record, routing),
        "variant": None if routing.variant is None else routing.variant.arm,
        "queue_wait_ms": _ms(record.queue_wait_s),
        "upstream_wait_ms": _ms(usage.upstream_wait_s),
        "ttfb_ms": _ms(record.first_byte_s),
        "llm_latency_ms": _ms(None if last.dispatched is None else now - last.dispatched),
        "total_ms": _ms(now - record.started),
        "load_ms": _ms(usage.load_s),
        "prompt_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "tokens_per_second": _tokens_per_second(record, now),
        "cost_usd": _usd(record.cost_usd_by(now)),
    }


def _tokens_per_second(record: CallRecord, now: float) -> float | None:
    """As Ollama measured it; else over a stream's length, from its first byte."""
    usage, first_byte = record.usage, record.attempts[-1].first_byte
    seconds = usage.eval_s
    if seconds is None and record.streamed and first_byte is not None:
        seconds = now - first_byte
    if not usage.output_tokens or not seconds:
        return None
    return quantity(round(usage.output_tokens / seconds, 2))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _usd(dollars: float | None) -> float | None:
    return None if dollars is None else round(dollars, 9)
