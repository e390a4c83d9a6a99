"""Keeping a client patient while nothing comes: an early head, and harmless pieces after it.

Some clients give up on a silent connection (LlamaIndex after 30 s, Node's fetch after
300 s) while a model is still loading or reading a long prompt. A role may ask for a head
before the upstream has sent one. What goes out with it means nothing in its dialect: an
empty token in NDJSON (blank lines and comments break several clients), a comment in SSE.
The price: from then on the status is 200, a failure can only be told inside the stream,
and no second model may be asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.deadlines import early_head_in
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from modelsplit_policy.go_json import Fields
    from modelsplit_proxy.calls.reply import Reply
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.clock import Clock

NDJSON: Final = b"application/x-ndjson"
SSE: Final = b"text/event-stream"

# Routes that can stream an answer, and whether they do unless told otherwise.
_STREAMS_BY_DEFAULT: Final = {
    "/api/generate": True,
    "/api/chat": True,
    "/v1/chat/completions": False,
    "/v1/completions": False,
    "/v1/responses": False,
    "/v1/messages": False,
}


def asks_for_stream(route: str, fields: Fields) -> bool:
    """Whether the request certainly asks for a streamed answer.

    Certainly: with ``stream`` given twice, which not every field of that name reads alike,
    it is not.
    """
    default = _STREAMS_BY_DEFAULT.get(route)
    given = fields.all("stream")
    if default is None or len(given) > 1:
        return False
    if route in {"/api/generate", "/api/chat"} and not _has_content(route, fields):
        return False  # a request to load or unload is answered whole
    return default if given in ([], [None]) else given[0] is True


def _has_content(route: str, fields: Fields) -> bool:
    return bool(fields.get("prompt" if route == "/api/generate" else "messages"))


class Patience:
    """Sends the early head after ``after_s`` seconds, then a piece every ``after_s``."""

    def __init__(self, reply: Reply, record: CallRecord, clock: Clock, after_s: float) -> None:
        self._reply = reply
        self._record = record
        self._clock = clock
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None
        self.committed = False

    def start(self) -> None:
        """Begin to count, from the call's own beginning."""
        self._arm(early_head_in(self._after_s, self._record.started, self._clock.now()))

    def stop(self) -> None:
        """Something has come."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._beat)

    def _beat(self) -> None:
        piece = self._piece()
        if self.committed:
            self._reply.down.write(piece)
        else:
            self.committed = True
            kind = NDJSON if self._record.dialect is Dialect.OLLAMA else SSE
            self._reply.commit_early(kind, piece)
        self._arm(self._after_s)

    def _piece(self) -> bytes:
        if self._record.dialect is not Dialect.OLLAMA:
            return b": waiting for the model\n\n"
        piece: dict[str, Any] = {
            "model": self._record.model,
            "created_at": rfc3339(self._clock.wall()),
        }
        if self._record.route == "/api/chat":
            piece["message"] = {"role": "assistant", "content": ""}
        else:
            piece["response"] = ""
        return orjson.dumps(piece | {"done": False}) + b"\n"
