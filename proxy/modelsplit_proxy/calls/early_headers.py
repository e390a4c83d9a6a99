"""Keeping a client patient while nothing comes: an early head, and harmless pieces after it.

Some clients give up on a silent connection (LlamaIndex after 30 s, Node's fetch after
300 s) while a model is still loading or reading a long prompt. A role may ask for a head
before the upstream has sent one. What goes out with it means nothing in its dialect
(``waiting_pieces``).
The price: from then on the status is 200, a failure can only be told inside the stream,
and no second model may be asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelsplit_policy.deadlines import early_head_in
from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from modelsplit_policy.go_json import Fields
    from modelsplit_proxy.calls.reply import Reply
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.clock import Clock


def asks_for_stream(endpoint: Endpoint, fields: Fields) -> bool:
    """Whether the request certainly asks for a streamed answer.

    Certainly: with ``stream`` given twice, which not every field of that name reads alike,
    it is not.
    """
    given = fields.all("stream")
    if endpoint.streams is None or len(given) > 1:
        return False
    content = endpoint.facts.content
    if content is not None and not fields.get(content):
        return False  # a request to load or unload is answered whole
    return endpoint.streams if given in ([], [None]) else given[0] is True


class EarlyHeaders:
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
            self._record.queue_position = 0
            self._reply.commit_early(self._record.endpoint.wire.stream_type, piece)
        self._arm(self._after_s)

    def _piece(self) -> bytes:
        make = self._record.endpoint.waiting_piece
        return b"" if make is None else make(self._record.model, rfc3339(self._clock.wall()))
