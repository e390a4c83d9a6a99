"""The streaming loop between a source and a sink that do nothing of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from modelsplit_policy.deadlines import Bounds
from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.relay import Relay
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.protocol.stream_end import Tail

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import AnswerSource
    from modelsplit_proxy.http.upstream import BodySink, Exchange


class FakeExchange:
    """An answer whose pieces the test deals out. ``told``: pauses and resumptions."""

    def __init__(self, *early: bytes) -> None:
        self.early = early
        self.sink: BodySink | None = None
        self.told: list[str] = []

    def attach(self, sink: BodySink) -> None:
        self.sink = sink
        for piece in self.early:
            sink.data(piece)

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def deal(self, *pieces: bytes) -> None:
        assert self.sink is not None
        for piece in pieces:
            self.sink.data(piece)

    def end(self, error: UpstreamError | None = None) -> None:
        assert self.sink is not None
        self.sink.ended(error)


class FakeDown:
    def __init__(self, *, writing_paused: bool = False) -> None:
        self.writing_paused = writing_paused
        self.written: list[bytes] = []
        self.source: AnswerSource | None = None

    def feed_from(self, source: AnswerSource | None) -> None:
        self.source = source

    def write(self, data: bytes) -> None:
        self.written.append(data)


def relay(exchange: FakeExchange, down: FakeDown, tail: Tail | None = None) -> Relay:
    return Relay(cast("Exchange", exchange), cast("Downstream", down), tail)


Running = asyncio.Task[UpstreamError | Reason | None]


async def start(one: Relay, bounds: Bounds = Bounds()) -> Running:  # noqa: B008 - a frozen value
    running = asyncio.get_running_loop().create_task(one.run(bounds))
    await asyncio.sleep(0)
    return running


async def soon(running: Running) -> UpstreamError | Reason | None:
    return await running
