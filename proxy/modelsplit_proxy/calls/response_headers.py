"""The header lines that tell a client what was done for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.http import headers

if TYPE_CHECKING:
    from modelsplit_proxy.records.record import CallRecord, Routing

_PLAIN: Final = re.compile(r"[ -~]{0,256}")
_NAME_MAX: Final = 256
_LIST_MAX: Final = 1024


def lines(record: CallRecord, now: float, *, total: bool) -> list[bytes]:
    """Every tag that applies at this moment, as whole lines.

    ``total``: the answer is complete, so its whole time can be told.
    """
    waited_ms = f"{record.queue_wait_s * 1000:.1f}"
    known_as = record.request_id
    block = (
        f"X-Request-Id: {known_as}\r\n"
        f"request-id: {known_as}\r\n"
        f"X-LLM-Queue-Wait-Ms: {waited_ms}\r\n"
        f"Server-Timing: queue;dur={waited_ms}{_timings(record)}"
    )
    # What else Server-Timing says, and the end of its line.
    block += f", total;dur={(now - record.started) * 1000:.1f}\r\n" if total else "\r\n"
    if record.requested_model:
        block += f"X-LLM-Requested-Model: {_text(record.requested_model)}\r\n"
    if (routing := record.routing) is not None:
        block += (
            f"X-LLM-Role: {routing.role}\r\n"
            f"X-LLM-Context: {routing.context}\r\n"
            f"X-LLM-Provider: {routing.provider}\r\n"
            f"X-LLM-Model: {_text(record.model)}\r\n"
            f"X-LLM-Attempt: {record.attempt_number}\r\n"
            f"X-LLM-Fallback-Used: {'true' if record.fallback_used else 'false'}\r\n"
            f"X-LLM-Route-Reason: {route_reason(record, routing)}\r\n"
        )
        if routing.variant is not None:
            block += f"X-LLM-Variant: {routing.variant.arm}\r\n"
    if record.host is not None:
        block += f"X-LLM-Host: {record.host}\r\n"
    if record.untranslated:
        block += f"X-LLM-Untranslated: {_text(', '.join(record.untranslated), _LIST_MAX)}\r\n"
    if record.queue_position is not None:
        block += f"X-LLM-Queue-Position: {record.queue_position}\r\n"
    if record.failure is not None:
        block += f"X-LLM-Error-Code: {record.failure.code}\r\n"
    return [block.encode("ascii"), headers.VIA_LINE]


def route_reason(record: CallRecord, routing: Routing) -> str:
    """Why this model, as clients are told it."""
    return "fallback" if len(record.attempts) > 1 else routing.reason


def _timings(record: CallRecord) -> str:
    """The parts of ``Server-Timing`` that may be unknown."""
    if not record.attempts:
        return ""
    known, last = "", record.attempts[-1]
    if (load_s := last.usage.load_s) is not None:
        known = f", load;dur={load_s * 1000:.1f}"
    if (inside_s := last.usage.upstream_wait_s) is not None:
        known += f", upstream_wait;dur={inside_s * 1000:.1f}"
    if last.first_byte is not None:
        known += f", ttfb;dur={(last.first_byte - record.started) * 1000:.1f}"
    return known


def _text(name: str, most: int = _NAME_MAX) -> str:
    """A model name, or a list of fields, as a header value.

    It came out of JSON and may hold anything: what a header cannot carry is
    percent-encoded, and the length is bounded.
    """
    if _PLAIN.fullmatch(name) is not None:
        return name
    safe = (c if " " <= c <= "~" else "".join(f"%{b:02X}" for b in _utf8(c)) for c in name[:most])
    return "".join(safe)


def _utf8(character: str) -> bytes:
    return character.encode("utf-8", "replace")
