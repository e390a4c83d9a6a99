"""A small OTLP/HTTP collector: takes what an exporter sends and decodes it."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from modelsplit_proxy.tracing import otlp
from support.patience import FAR_AWAY_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    import pytest

# The thread of OpenTelemetry's SDK that sends spans.
_EXPORTER: Final = "OtelBatchSpanRecordProcessor"


@contextlib.contextmanager
def patient_exporters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The last spans may come as late as they like, and no exporter outlives its test."""
    monkeypatch.setattr(otlp, "_LAST_S", FAR_AWAY_S)
    yield
    for thread in threading.enumerate():
        if thread.name == _EXPORTER:
            thread.join()


def impatient_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    """For collectors in trouble: the end waits for nothing, and exporters give up soon."""
    monkeypatch.setattr(otlp, "_LAST_S", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


@dataclass
class Request:
    """One request: its headers, its bytes and what they say."""

    path: str
    headers: dict[str, str]
    body: bytes
    decoded: Any


@dataclass
class Collector:
    """Listens in a thread of its own. ``status``: what it answers; ``mute``: it never does."""

    status: int = 200
    mute: bool = False
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._changed = threading.Condition()
        self._let_go = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        if self.mute:
            self._let_go.wait()

    def wait(self, count: int = 1) -> list[dict[str, Any]]:
        """The spans, once there are so many; blocks."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.spans()) >= count)
            return self.spans()

    def spans(self) -> list[dict[str, Any]]:
        """What has come, by the order in which it came: plain values, ids in hex."""
        return [
            _plain(span) | {"resource": _values(group.resource.attributes)}
            for request in self.requests
            for group in request.decoded.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]


def _plain(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "started": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "attributes": _values(span.attributes),
        "events": [(event.name, event.time_unix_nano) for event in span.events],
        "status": (span.status.code, span.status.message),
    }


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


def _handler(collector: Collector) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            decoded = ExportTraceServiceRequest.FromString(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            collector.take(Request(self.path, headers, body, decoded))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Not on the tests' stderr."""

    return Handler
