"""Spans as a collector gets them from OpenTelemetry's own exporter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.tracing.otlp import OtlpTraces
from support.collector import Collector, impatient_exporters, patient_exporters
from support.ports import kept_port
from support.records import answered, fallen_back
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_proxy.records.record import CallRecord

UPSTREAM = Address("127.0.0.1", 11434)
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SERVER, CLIENT = 2, 3
UNSET, ERROR = 0, 2


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with patient_exporters(monkeypatch):
        yield


def traces(url: str) -> OtlpTraces:
    return OtlpTraces(f"{url}/v1/traces", UPSTREAM, "1.2.3", SystemClock())


async def sent(*records: CallRecord) -> Collector:
    """What has come to a collector when the traces of these calls were closed."""
    with Collector() as collector:
        told = traces(collector.url)
        for record in records:
            told.call_ended(record)
        await told.close()
    return collector


async def test_a_call_is_a_servers_span_with_a_clients_for_each_attempt() -> None:
    collector = await sent(fallen_back())
    [request] = collector.requests
    assert request.path == "/v1/traces"
    assert request.headers["content-type"] == "application/x-protobuf"
    spans = {span["name"]: span for span in collector.spans()}
    call, first, second = spans["chat planner"], spans["chat qwen3:4b"], spans["chat qwen3:8b"]
    assert (call["kind"], first["kind"], second["kind"]) == (SERVER, CLIENT, CLIENT)
    assert call["parent"] == ""
    assert {first["parent"], second["parent"]} == {call["span_id"]}
    assert len({span["trace_id"] for span in spans.values()}) == 1
    assert first["status"] == (ERROR, "E_UNREACHABLE_LOCAL connect_refused")
    assert (call["status"], second["status"]) == ((UNSET, ""), (UNSET, ""))
    assert second["attributes"]["server.address"] == "127.0.0.1"
    assert second["attributes"]["server.port"] == 11434
    assert call["resource"]["service.name"] == "modelsplit"
    assert call["resource"]["service.version"] == "1.2.3"
    assert (call["ended"] - call["started"]) / 1e9 == 4
    assert [name for name, _ in second["events"]] == ["seated", "dispatched", "first_byte"]


async def test_the_clients_trace_is_continued() -> None:
    record = answered(
        trace_context={"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
    )
    spans = {span["name"]: span for span in (await sent(record)).spans()}
    assert {span["trace_id"] for span in spans.values()} == {TRACE}
    assert spans["chat planner"]["parent"] == SPAN
    assert spans["chat qwen3:4b"]["parent"] == spans["chat planner"]["span_id"]
    assert spans["chat planner"]["state"] == "vendor=1"


async def test_a_trace_that_its_client_does_not_sample_is_not_sent() -> None:
    record = answered(trace_context={"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert (await sent(record)).requests == []


@pytest.mark.parametrize("parent", ["", "x", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{SPAN}"])
async def test_a_trace_that_cannot_be_read_is_begun_anew(parent: str) -> None:
    [attempt, call] = (await sent(answered(trace_context={"traceparent": parent}))).spans()
    assert call["parent"] == ""
    assert attempt["trace_id"] == call["trace_id"] != TRACE


async def test_headers_and_the_services_name_are_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "llm-host")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    collector = await sent(answered())
    assert collector.requests[0].headers["authorization"] == "Bearer abc"
    assert collector.spans()[0]["resource"]["service.name"] == "llm-host"


async def test_a_collector_that_is_away_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient_exporters(monkeypatch)
    with kept_port() as port:
        url = f"http://127.0.0.1:{port}"

        def said() -> list[str]:
            # An exporter that outlived an earlier test has something to say of its own address.
            lines = [record.getMessage() for record in caplog.records]
            return [line for line in lines if line.startswith(f"traces are not taken at {url}/")]

        told = traces(url)
        for _ in range(3000):  # more than the queue holds
            told.call_ended(answered())
        await until(lambda: bool(said()))
        await told.close()
    [line] = said()
    assert line.startswith(f"traces are not taken at {url}/v1/traces: ")
    assert "refused" in line or "retries" in line


async def test_a_collector_that_never_answers_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient_exporters(monkeypatch)
    with Collector(mute=True) as collector:
        told = traces(collector.url)
        told.call_ended(answered())
        await told.close()
        assert len(await asyncio.to_thread(collector.wait, 2)) == 2


async def test_a_collector_that_refuses_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with Collector(status=400) as collector:
        told = traces(collector.url)
        told.call_ended(answered())
        await told.close()
    assert "Failed to export spans batch code: 400" in caplog.text
