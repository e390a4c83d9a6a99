"""One line per finished call, written where the loop cannot be held up by it."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records import request_log
from modelsplit_proxy.records.request_log import RequestLog, listing, text
from modelsplit_proxy.records.values import log_fields
from support.records import REFUSED, answered, begun, fallen_back, turned_away

if TYPE_CHECKING:
    from modelsplit_proxy.records.record import CallRecord


class Slow:
    """A sink that is stuck until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.data: list[bytes] = []

    def __call__(self, data: bytes, /) -> None:
        self.entered.set()
        assert self.go.wait(10)
        self.data.append(data)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in b"".join(self.data).splitlines()]


async def test_a_finished_call_is_one_line_of_json() -> None:
    written: list[bytes] = []
    log = RequestLog(written.append, as_json=True)
    log.call_ended(answered())
    log.call_ended(turned_away())
    await log.close()
    lines = [orjson.loads(line) for line in b"".join(written).splitlines()]
    assert [line["outcome"] for line in lines] == ["ok", "E_OVERLOAD_THROTTLED"]
    assert lines[0] == orjson.loads(orjson.dumps(log_fields(answered())))


async def test_lines_are_written_a_moment_later_without_being_asked() -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    log = RequestLog(lambda _: loop.call_soon_threadsafe(arrived.set), as_json=True)
    log.call_ended(answered())
    await arrived.wait()
    await log.close()


async def test_a_stuck_sink_does_not_hold_up_calls_and_loses_nothing() -> None:
    sink = Slow()
    log = RequestLog(sink, as_json=True)
    log.call_ended(answered(request_id="first"))
    await asyncio.to_thread(sink.entered.wait, 10)
    for number in range(100):
        log.call_ended(answered(request_id=f"r{number}"))
    closing = asyncio.get_running_loop().create_task(log.close())
    sink.go.set()
    await closing
    assert [line["request_id"] for line in sink.lines] == ["first", *(f"r{n}" for n in range(100))]


async def test_a_sink_that_stays_stuck_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_log, "_CLOSE_S", 0.0)
    sink = Slow()
    log = RequestLog(sink, as_json=True)
    log.call_ended(answered(request_id="first"))
    await asyncio.to_thread(sink.entered.wait, 10)
    log.call_ended(answered(request_id="lost"))
    await log.close()
    sink.go.set()
    await log.close()  # nothing is left


def test_after_close_nothing_is_left_to_happen() -> None:
    async def still_due() -> list[asyncio.TimerHandle]:
        sink = Slow()
        log = RequestLog(sink, as_json=True)
        log.call_ended(answered())
        await asyncio.to_thread(sink.entered.wait, 10)
        log.call_ended(answered())
        sink.go.set()
        await log.close()
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        return [timer for timer in timers if not timer.cancelled()]

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(still_due()) == []


async def test_lines_beyond_what_is_reasonable_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_log, "_MAX_WAITING", 3)
    written: list[bytes] = []
    log = RequestLog(written.append, as_json=True)
    for _ in range(10):
        log.call_ended(answered())
    await log.close()
    *lines, told = b"".join(written).splitlines()
    assert len(lines) == 3
    assert orjson.loads(told) == {"event": "log_dropped", "lines": 7}


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), ValueError("closed")])
async def test_a_sink_that_fails_is_not_the_calls_business(error: Exception) -> None:
    def broken(_: bytes) -> None:
        raise error

    log = RequestLog(broken, as_json=True)
    log.call_ended(answered())
    await log.close()


# --- For people -------------------------------------------------------------------------------


def words(fields: dict[str, Any]) -> str:
    return " ".join(text(fields).split())


def test_a_line_for_people() -> None:
    assert words(log_fields(answered())) == (
        "00:29:06.250 PLANNER planner -> qwen3:4b 200 "
        "wait 0.50s llm 2.50s total 3.00s attempt 1 req-1"
    )


def test_a_list_is_in_the_order_in_which_calls_came_and_says_when_they_came() -> None:
    slow, quick = log_fields(answered()), log_fields(answered())
    quick |= {"started_at": "2026-11-23T00:29:04.000Z", "ts": "2026-11-23T00:29:04.100Z"}
    running = log_fields(begun()) | {"outcome": "running", "state": "queued"}
    running["started_at"] = "2026-11-23T00:29:05.000Z"
    lines = listing([running, quick, slow]).splitlines()
    assert [line[:23] for line in lines] == [
        "2026-11-23 00:29:03.250",
        "2026-11-23 00:29:04.000",
        "2026-11-23 00:29:05.000",
    ]
    assert "attempt 1  running queued  " in lines[-1]


def test_a_fallback_and_a_failure_say_why() -> None:
    assert "attempt 2 fallback after E_UNREACHABLE_LOCAL" in words(log_fields(fallen_back()))
    refused = words(log_fields(turned_away()))
    assert refused.endswith("not sent E_OVERLOAD_THROTTLED queue_full req-1")
    untaken = words(log_fields(answered(failure=REFUSED)))
    assert untaken.endswith("not sent E_UNREACHABLE_LOCAL connect_refused req-1")


async def test_no_model_name_can_forge_a_line_or_move_the_cursor() -> None:
    written: list[bytes] = []
    log = RequestLog(written.append, as_json=False)
    record = answered()
    record.requested_model = "x\n00:00:00.000 \x1b[2J\r\u2028\ud83d" + "y" * 5000
    log.call_ended(record)
    await log.close()
    data = b"".join(written)
    assert len(data.decode().splitlines()) == 1
    assert b"\x1b" not in data
    assert len(data) < 4200


async def test_closing_in_the_moment_a_write_has_ended_ends() -> None:
    """A finished write whose callback has not run yet must not be waited for in a circle."""
    written = threading.Event()

    def sink(data: bytes) -> None:
        lines.append(data)
        written.set()

    lines: list[bytes] = []
    log = RequestLog(sink, as_json=True)
    log.call_ended(answered())
    writing = log._flush()
    written.wait(5)
    while not writing.done():  # noqa: ASYNC110 - the state right after it, with no event
        await asyncio.sleep(0)
    log._writing = writing
    await log.close()
    assert len(lines) == 1


# --- What cannot be said -----------------------------------------------------------------------


def poisoned() -> list[CallRecord]:
    large, half, odd, endless = (answered(request_id=name) for name in ("l", "h", "o", "e"))
    large.attempts[0].usage = Usage(2**64, 2**70)
    half.requested_model = "a\ud800"
    odd.status = object()  # type: ignore[assignment]
    endless.started_wall = math.inf
    return [large, half, odd, endless]


@pytest.mark.parametrize("as_json", [True, False])
async def test_a_call_that_cannot_be_said_has_a_line_and_takes_no_other_along(
    as_json: bool,
) -> None:
    written: list[bytes] = []
    log = RequestLog(written.append, as_json=as_json)
    for record in (answered(request_id="first"), *poisoned(), answered(request_id="last")):
        log.call_ended(record)
    await log.close()
    lines = b"".join(written).splitlines()
    assert len(lines) == 6
    if as_json:
        told = {line["request_id"]: line for line in map(orjson.loads, lines)}
        assert list(told) == ["first", "l", "h", "o", "e", "last"]
        assert (told["l"]["prompt_tokens"], told["l"]["output_tokens"]) == (None, None)
        assert told["h"]["requested_model"] == "a\ufffd"
        assert told["o"]["status"] == "<object>"
        assert told["e"].keys() == {"event", "request_id", "unsaid"}
        assert told["e"]["unsaid"].startswith("OverflowError(")
