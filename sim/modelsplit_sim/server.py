"""The stand-in itself: a real server in the caller's event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from .ask import decode
from .config import SimConfig
from .errors import BUSY, DIED, ApiError, Surface, error_reply, surface_of
from .exchange import AnsweredError, Exchange, Request
from .faults import INSTEAD, Fault, Faults, Kind
from .handlers import FORMS, GENERATING, PLAIN, WITH_BODY
from .journal import OPEN_STATES, Call, CallState, Counts, Journal
from .models import Catalogue
from .pacing import Compute
from .reply import JSON_UTF8, Reply
from .routes import Match, resolve
from .scheduler import Scheduler
from .tasks import Tasks
from .transcribe import read_form
from .wire import Connection
from .world import World

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKLOG = 1024


class Sim:
    """`async with Sim(SimConfig(...)) as sim:` serves on 127.0.0.1 at sim.url.

    stop() takes the server away as SIGTERM does, start(port=sim.port) brings it back with no
    model loaded; faults, counts and the log live on.
    """

    def __init__(self, config: SimConfig | None = None) -> None:
        self.config = config or SimConfig()
        self.faults = Faults()
        self.journal = Journal(self.config.log_size)
        self.tasks = Tasks()
        self.log_body_bytes = self.config.log_body_bytes
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._world: World | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self, port: int | None = None) -> None:
        """Listen; port None means the port it had before, or a free one."""
        loop = asyncio.get_running_loop()
        self._world = self._new_world(loop)
        self._server = await loop.create_server(
            self._connect, "127.0.0.1", self.port if port is None else port, backlog=_BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Observed for SIGTERM: open streams end with FIN, no final chunk and no error line."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self._connections):
            connection.shut()
        await self.tasks.cancel_all()
        self.world.scheduler.clear()
        await self.wait_for(lambda sim: not sim.connections_open)

    close = stop

    # -- what tests look at

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def world(self) -> World:
        assert self._world is not None, "not started"
        return self._world

    @property
    def scheduler(self) -> Scheduler:
        return self.world.scheduler

    @property
    def calls(self) -> list[Call]:
        """The last requests that arrived, oldest first."""
        return list(self.journal.calls)

    @property
    def counts(self) -> Counts:
        return self.journal.counts

    @property
    def active(self) -> int:
        """Generations that hold a slot now."""
        return self.counts.active

    @property
    def max_active(self) -> int:
        return self.counts.max_active

    @property
    def connections_open(self) -> int:
        return self.counts.connections_open

    @property
    def waiting(self) -> int:
        """Requests without a slot: queued for a load, loading, or behind a warm runner's slots."""
        scheduler = self.world.scheduler
        warm = sum(len(runner.waiting) for runner in scheduler.runners.values())
        return warm + len(scheduler.pending) + (scheduler.head is not None)

    @property
    def loaded(self) -> list[str]:
        """Names of the models with a runner, oldest load first."""
        return [runner.spec.name for runner in self.world.scheduler.runners.values()]

    def in_state(self, *states: CallState) -> list[Call]:
        """The logged calls in one of these states."""
        return [call for call in self.journal.calls if call.state in states]

    async def wait_for(self, holds: Callable[[Sim], bool], timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Return as soon as a state change made `holds(sim)` true; TimeoutError after `timeout`.

        None: wait for as long as it takes.
        """
        await self.journal.wait_for(lambda: holds(self), timeout)

    # -- what connections ask (wire.Host)

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.counts.connections_open += 1
        self.journal.changed()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.counts.connections_open -= 1
        self.counts.leaked -= connection.leaked
        self.journal.changed()

    def exchange(self, connection: Connection, request: Request) -> Exchange:
        self.counts.received += 1
        call = Call(
            id=self.counts.received,
            connection=connection.number,
            method=request.method,
            target=request.target,
            headers=request.headers,
            arrived_at=self.world.now(),
        )
        self.journal.calls.append(call)
        self.journal.changed()
        return Exchange(connection, request, call)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request; every way out closes the call's record."""
        outcome = CallState.ABORTED
        try:
            await self._answer(exchange)
            outcome = CallState.FINISHED
        except AnsweredError as answered:
            outcome = CallState.FINISHED if answered.whole else CallState.ABORTED
        finally:
            self._note_body(exchange)
            self.journal.end(exchange.call, outcome, self.world.now())

    def left(self, exchange: Exchange) -> None:
        call = exchange.call
        if call.left_at is None and call.state in OPEN_STATES and not exchange.done:
            call.left_at = self.world.now()

    def keeps(self, exchange: Exchange) -> bool:
        """Observed: a client that leaves while queued for a load is never told, nor closed."""
        kept = self.config.leak_abandoned and exchange.was_queued
        self.counts.leaked += kept
        self.journal.changed()
        return kept

    # -- the path of a request

    def _new_world(self, loop: asyncio.AbstractEventLoop) -> World:
        config, journal = self.config, self.journal
        return World(
            config=config,
            catalogue=Catalogue(config.specs),
            scheduler=Scheduler(config, loop, journal.changed),
            faults=self.faults,
            journal=journal,
            compute=Compute(
                shared=config.shared_compute, contention=config.contention, free=config.free
            ),
        )

    def _connect(self) -> Connection:
        self.counts.connections_accepted += 1
        return Connection(self, self.counts.connections_accepted)

    async def _answer(self, exchange: Exchange) -> None:
        match = resolve(exchange.request, self.config.hostname)
        exchange.extra_headers = match.headers
        surface = surface_of(exchange.request.path)
        try:
            await self._route(exchange, match, surface)
        except ApiError as error:
            await exchange.send(error_reply(error, surface))

    async def _route(self, exchange: Exchange, match: Match, surface: Surface) -> None:
        if match.reply is not None:
            await exchange.send(match.reply)
            return
        if match.route in PLAIN:
            await self._strike(exchange, None, surface)
            await PLAIN[match.route](self.world, exchange, match.parameter)
            return
        body = await exchange.read_body()
        self._note_body(exchange)
        if match.route in FORMS:
            handler = FORMS[match.route]
            fields = read_form(body, exchange.request.header("content-type") or "")
        else:
            shape, handler = WITH_BODY[match.route]
            fields = decode(body, shape, native=surface is Surface.NATIVE)
        name = fields.get("model") or fields.get("name")
        exchange.call.model = name if isinstance(name, str) else None
        self.journal.changed()
        await self._strike(exchange, exchange.call.model, surface)
        await handler(self.world, exchange, fields)

    def _note_body(self, exchange: Exchange) -> None:
        body, call = exchange.request.body, exchange.call
        call.body, call.body_size, call.body_sha256 = body.head, body.size, body.sha256

    async def _strike(self, exchange: Exchange, model: str | None, surface: Surface) -> None:
        """Choose this request's fault, and act on it if it stands instead of an answer."""
        path = exchange.request.path
        fault = self.faults.take(model, path, generates=path in GENERATING or path in FORMS)
        if fault is None:
            return
        exchange.call_fault = fault
        exchange.call.fault = fault.kind
        self.journal.changed()
        if fault.kind in INSTEAD:
            await _instead(exchange, fault, surface)


async def _instead(exchange: Exchange, fault: Fault, surface: Surface) -> None:
    if fault.kind is Kind.STATUS:
        await exchange.send(_refusal(fault, surface))
        raise exchange.ended(whole=True)
    if fault.kind is Kind.HANG:
        await asyncio.get_running_loop().create_future()
    if fault.kind is Kind.GARBAGE:
        exchange.raw(b"HTTP/9.9 banana\r\n\r\n")
    raise exchange.drop(reset=fault.kind is Kind.RESET)


def _refusal(fault: Fault, surface: Surface) -> Reply:
    if fault.body is not None:
        return Reply(fault.status, (("Content-Type", JSON_UTF8),), fault.body.encode())
    return error_reply(ApiError(fault.status, _message(fault.status)), surface)


def _message(status: int) -> str:
    return BUSY if status == 503 else DIED
