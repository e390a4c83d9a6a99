"""One line per finished call, written where the loop cannot be held up by it.

Calls are collected, and their lines put together and written a moment later, from a thread:
a full pipe or a slow disk delays lines, never calls. When more wait than is reasonable, lines
are dropped and the count of them is told.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from modelsplit_policy.failures import NEVER_LEFT, said_back
from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.records.query_error import RUNNING
from modelsplit_proxy.records.values import log_fields
from modelsplit_proxy.runtime import local_time

if TYPE_CHECKING:
    from modelsplit_proxy.records.record import CallRecord

_DELAY_S: Final = 0.05
# How long the end waits for one write.
_CLOSE_S: Final = 1.0
_MAX_WAITING: Final = 10_000
# Lines put together in one go: the event loop waits for the interpreter meanwhile.
_AT_ONCE: Final = 20
# Characters; a model's name comes from a client and may hold anything.
_TEXT_MAX: Final = 1000


class Sink(Protocol):
    """Where lines go; may block, may raise OSError."""

    def __call__(self, data: bytes, /) -> object: ...


class RequestLog:
    """Formats and writes finished calls."""

    def __init__(self, sink: Sink, *, as_json: bool) -> None:
        self._sink = sink
        self._format = _json_line if as_json else _text_line
        self._waiting: list[CallRecord] = []
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="request-log")
        self._writing: asyncio.Future[None] | None = None

    def call_ended(self, record: CallRecord) -> None:
        """Note a finished call; never blocks."""
        if len(self._waiting) >= _MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(record)
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._flush)

    async def close(self) -> None:
        """Write what is left; a sink that is stuck gets a moment, then the rest is lost."""
        while self._waiting or self._writing is not None:
            writing = self._writing or self._flush()
            done, _ = await asyncio.wait([writing], timeout=_CLOSE_S)
            if not done:
                self._waiting.clear()
                self._writer.shutdown(wait=False, cancel_futures=True)
                return
            # Awaiting what is done does not let the loop turn, so the callback that clears
            # this may not have run, and would never run while we loop here.
            self._written(writing)
        self._writer.shutdown()

    def _flush(self) -> asyncio.Future[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._waiting = self._waiting, []
        dropped, self._dropped = self._dropped, 0
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._writer, self._write, records, dropped)
        self._writing = writing
        writing.add_done_callback(self._written)
        return writing

    def _write(self, records: list[CallRecord], dropped: int) -> None:
        """In the writer's thread. Ended calls change no more, so they can be read here."""
        try:
            for start in range(0, len(records), _AT_ONCE):
                some = records[start : start + _AT_ONCE]
                self._sink(b"".join(map(self._line, some)))
            if dropped:
                self._sink(_dropped_line(dropped))
        except (OSError, ValueError):
            # A broken pipe, a full device, a closed stream: calls matter more than lines.
            return

    def _line(self, record: CallRecord) -> bytes:
        """The record's line; if it has values that no line can say, one that says so."""
        try:
            return self._format(log_fields(record))
        except Exception as error:  # noqa: BLE001 - one call's line takes no other along
            fields = {"event": "request", "request_id": record.request_id}
            fields["unsaid"] = repr(error)[:200]
            return tellable.dumps(fields, orjson.OPT_APPEND_NEWLINE)

    def _written(self, done: asyncio.Future[None]) -> None:
        """One write has ended; told once by the future, and perhaps once by ``close``."""
        if self._writing is not done:
            return
        self._writing = None
        done.result()
        if self._waiting and self._timer is None:
            self._timer = done.get_loop().call_later(_DELAY_S, self._flush)


def _json_line(fields: dict[str, Any]) -> bytes:
    return tellable.dumps(fields, orjson.OPT_APPEND_NEWLINE)


def _text_line(fields: dict[str, Any]) -> bytes:
    return (text(fields) + "\n").encode("utf-8", "replace")


def text(fields: dict[str, Any]) -> str:
    """One call on one line for people: when, whose, what became of it, where the time went."""
    return said_back(f"{fields['ts'][11:23]} {_told(fields)}", _TEXT_MAX)


def _told(fields: dict[str, Any]) -> str:
    """All but when."""
    model = fields["llm_model"] or "-"
    if fields["requested_model"] not in {"", model}:
        model = f"{fields['requested_model']} -> {model}"
    attempt = f"attempt {fields['llm_attempt']}"
    outcome, running = fields["outcome"], fields["outcome"] == RUNNING
    unsent = fields["llm_latency_ms"] is None or fields.get("reason") in NEVER_LEFT
    if fields["llm_attempt"] == 1 and unsent and not running:
        attempt = "not sent "  # no model was asked, or nobody took the connection
    parts = [
        f"{fields['llm_role'] or '-':8} {model:32}",
        f"{fields['status'] or '-'!s:>3}",
        f"wait {_ms(fields['llm_queue_wait_ms'])}",
        f"llm {_ms(fields['llm_latency_ms'])}",
        f"total {_ms(fields['call_e2e_latency_ms'])}",
        attempt,
    ]
    if fields["fallback_used"]:
        parts.append(f"fallback after {fields['fallback_cause'] or 'request'}")
    if outcome != "ok":
        why = fields["state"] if running else fields.get("reason", "")
        parts.append(f"{outcome} {why}".strip())
    parts.append(fields["request_id"][:12])
    return "  ".join(parts)


def listing(calls: list[dict[str, Any]]) -> str:
    """Calls, given newest first, as such lines with when they came, in our zone, the last last."""
    lines = (
        f"{local_time.millisecond(call['started_at'])} {_told(call)}" for call in reversed(calls)
    )
    return "".join(f"{said_back(line, _TEXT_MAX)}\n" for line in lines)


def _ms(value: float | None) -> str:
    return "     -" if value is None else f"{value / 1000:5.2f}s"


def _dropped_line(count: int) -> bytes:
    return orjson.dumps({"event": "log_dropped", "lines": count}) + b"\n"
