"""What one attempt talks to, made by hand: a client, a gate, an upstream without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from modelsplit_policy.breaker import Allowed, BreakerRules, Breakers
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.parallelism import Report
from modelsplit_policy.prices import Prices
from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.tickets import Crowd, Hold, Place, Ticket
from modelsplit_policy.tickets import Seats as Limits
from modelsplit_policy.vocabulary import DEFAULT_HOST, Provider
from modelsplit_proxy.calls.answer import AnswerParts
from modelsplit_proxy.calls.attempt import AttemptParts, AttemptRun, LocalHost, OutgoingRequest
from modelsplit_proxy.calls.attempt_plan import AttemptPlans
from modelsplit_proxy.calls.deadlines import ELSEWHERE, Known
from modelsplit_proxy.calls.missing_model import MissingModel
from modelsplit_proxy.calls.reply import Reply, ReplyParts, Setback
from modelsplit_proxy.http.downstream import Downstream
from modelsplit_proxy.http.request import Request
from modelsplit_proxy.http.upstream import BodySink, UpstreamError, UpstreamHead, UpstreamTarget
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from modelsplit_proxy.limits.admission_queue import AdmissionQueue
from modelsplit_proxy.limits.breakers import BreakerKeeper
from modelsplit_proxy.protocol.request_headers import NOTHING, Asked
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.runtime.lifecycle import Lifecycle
from modelsplit_proxy.watch.installed_models import InstalledModels
from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
from modelsplit_proxy.watch.presence import Presence
from modelsplit_proxy.watch.upstream_probe import UpstreamProbe
from support.bodies import read_body
from support.budget_keepers import without_a_file
from support.endpoints import endpoint
from support.harness import Overlay, policy
from support.records import PLANNER, begun

JSON = (b"Content-Type", b"application/json")
NDJSON = (b"Content-Type", b"application/x-ndjson")
SSE = (b"Content-Type", b"text/event-stream")
DONE = b'{"model":"qwen3:4b","response":"","done":true,"eval_count":2}\n'
LATE = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT, "late", "Upstream Timeout")
TOKEN = b'{"model":"qwen3:4b","response":"a","done":false}\n'


class Heard:
    """The client's end: what was said to it, in order."""

    def __init__(self) -> None:
        self.status = 0
        self.phrase = ""
        self.lines: list[bytes] = []
        self.length: int | None = None
        self.closes = False
        self.body = b""
        self.heads = 0
        self.ending: str | None = None
        self.writing_paused = False
        self.hold = None

    def head(
        self, status: int, phrase: str, lines: list[bytes], *, length: int | None, close: bool
    ) -> None:
        self.heads += 1
        self.status, self.phrase, self.lines = status, phrase, lines
        self.length, self.closes = length, close

    def write(self, data: bytes) -> None:
        assert self.heads == 1, "a body without a head, or after two"
        assert self.ending is None, "more after the end"
        self.body += data

    def end(self) -> None:
        assert self.ending is None, "ended twice"
        self.ending = "clean"

    def abort(self) -> None:
        assert self.ending is None, "ended twice"
        self.ending = "broken"

    def feed_from(self, source: object) -> None:
        del source

    def header(self, name: str) -> str | None:
        pairs = b"".join(self.lines).decode("latin-1").split("\r\n")
        named = [pair.partition(": ")[2] for pair in pairs if pair.startswith(f"{name}: ")]
        assert len(named) <= 1, pairs
        return named[0] if named else None

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def downstream(heard: Heard) -> Downstream:
    return cast("Downstream", heard)


def request(headers: Mapping[str, str] | None = None, *, read: bool = True) -> Request:
    """``read``: its body has been read to the end."""
    sent = CIMultiDict({"Host": "127.0.0.1", **(headers or {})})
    raw = tuple((name.encode(), value.encode()) for name, value in sent.items())
    known = SimpleNamespace(
        headers=CIMultiDictProxy(sent),
        raw_headers=raw,
        content=SimpleNamespace(is_eof=lambda: read),
        remote="127.0.0.1",
        origin=sent.get("Origin"),
    )
    return cast("Request", known)


class Seats:
    """A gate: seats at once, unless told to refuse, or to keep waiting until ``grant``."""

    def __init__(self, *, waits: bool = False, refusal: Failure | None = None) -> None:
        self.waits = waits
        self.refusal = refusal
        self.granted = asyncio.Event()
        self.tickets: list[Ticket] = []
        self.left: list[Ticket] = []
        self.reports: list[Report | None] = []
        self.began = 0

    def ask(self, ticket: Ticket) -> Failure | None:
        self.tickets.append(ticket)
        if self.waits:
            ticket.place = Place.WAITING
            return None
        if self.refusal is None:
            ticket.place = Place.SEATED
        return self.refusal

    async def wait(self, ticket: Ticket) -> Failure | None:
        await self.granted.wait()
        if self.refusal is None:
            ticket.place = Place.SEATED
        return self.refusal

    def seats(self, ticket: Ticket) -> Limits:
        del ticket
        return Limits(1, 2, 1, 6, 1, None, 6, "")

    def crowd(self, ticket: Ticket) -> Crowd:
        del ticket
        return Crowd(Hold.ROLE_CAP, {}, {}, {}, {})

    def gone_s(self, ticket: Ticket) -> float:
        del ticket
        return 0.0

    def leave(self, ticket: Ticket, report: Report | None = None) -> None:
        self.left.append(ticket)
        self.reports.append(report)

    def first_byte(self, ticket: Ticket) -> None:
        del ticket
        self.began += 1


@dataclass
class Upstream:
    """One answer, said when it is asked for: a head, then pieces, then an end.

    ``head`` None: it never begins. ``error``: how it breaks, before the head if there is
    none. ``ends`` False: it falls silent instead.
    """

    head: UpstreamHead | None = None
    pieces: tuple[bytes, ...] = ()
    error: UpstreamError | None = None
    refused: UpstreamError | None = None
    ends: bool = True
    paused: bool = False
    written: bytes = b""
    aborted: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    # Pool and connection

    async def acquire(self) -> Upstream:
        if self.refused is not None:
            raise self.refused
        return self

    def start(self, *, head_request: bool) -> Upstream:
        assert not head_request
        return self

    def write(self, data: bytes) -> None:
        self.written += data
        self.asked.set()

    # Exchange

    async def ready_by(self, until: float | None) -> UpstreamHead | None:
        if self.head is None:
            if self.error is not None:
                raise self.error
            never = asyncio.get_running_loop().create_future()
            left_s = None if until is None else until - asyncio.get_running_loop().time()
            await asyncio.wait([never], timeout=left_s)
        return self.head

    @property
    def is_empty(self) -> bool:
        return self.ends and not self.pieces and self.error is None

    def attach(self, sink: BodySink) -> None:
        while self.pieces and not self.paused:
            piece, *rest = self.pieces
            self.pieces = tuple(rest)
            sink.data(piece)
        if self.ends and not self.pieces:
            sink.ended(self.error)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted += 1

    @property
    def body(self) -> Any:
        return orjson.loads(self.written.partition(b"\r\n\r\n")[2])


def answers(status: int, *pieces: bytes, kind: tuple[bytes, bytes] = JSON, **more: Any) -> Upstream:
    """An upstream that says these pieces."""
    return Upstream(UpstreamHead(status, b"OK", [kind], None), pieces, **more)


class Ticking:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1795393743.25


class Loaded:
    """A watch where everything is loaded, or nothing is."""

    def __init__(self, *, loaded: bool = True) -> None:
        self._loaded = loaded

    def loaded(self, model: str) -> bool:
        del model
        return self._loaded

    def hurried(self) -> Any:
        return self

    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...

    async def ask(self, *timeout_s: float) -> None: ...


class Trial:
    """One call with everything around it; ``attempt`` makes the next attempt of it."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        overlay: Overlay | None = None,
        admission_queue: Seats | None = None,
        asked: Asked = NOTHING,
        loaded: bool = True,
        stall_s: float = 5.0,
        route: Route = PLANNER,
        label: str = "/api/generate",
        headers: Mapping[str, str] | None = None,
        body: bytes = b'{"model":"planner","prompt":"hi"}',
    ) -> None:
        self.upstream = upstream
        self.admission_queue = admission_queue or Seats()
        self.clock = Ticking()
        self.probe = cast("UpstreamProbe", SimpleNamespace(up=True, mute_since=None))
        self.breakers = BreakerKeeper(Breakers(BreakerRules()), self.clock)
        rules = policy(overlay).policy
        budget_keeper = without_a_file(rules)
        lifecycle = Lifecycle()
        target = UpstreamTarget("127.0.0.1", 11434, "127.0.0.1:11434")
        known = Known(cast("LoadedModelsWatch", Loaded(loaded=loaded)), self.probe)
        host = LocalHost(
            DEFAULT_HOST,
            None,
            cast("UpstreamPool", upstream),
            known,
            cast("Presence", SimpleNamespace(call_failed=lambda _: False)),
            AnswerParts(target, lifecycle, self.probe, MissingModel(rules, tuple)),
        )
        self.parts = AttemptParts(
            host=host,
            hosts={},
            fleet=None,
            cloud_answers=AnswerParts(
                target, lifecycle, ELSEWHERE.probe, MissingModel(rules, tuple)
            ),
            policy=rules,
            plans=AttemptPlans(rules, Prices(rules), budget_keeper, stall_s),
            admission_queue=cast("AdmissionQueue", self.admission_queue),
            known=known,
            breakers=self.breakers,
            budget_keeper=budget_keeper,
            installed=cast(
                "InstalledModels", SimpleNamespace(elsewhere=frozenset[str](), unsure={})
            ),
            clock=self.clock,
        )
        replies = ReplyParts(rules, budget_keeper, self.clock, lifecycle)
        self.heard = Heard()
        self.record: CallRecord = begun(endpoint=endpoint(label))
        self.routing = self.record.routed(route)
        incoming = request(headers)
        self.reply = Reply(replies, incoming, downstream(self.heard), self.record)
        self.sent = OutgoingRequest(incoming, label, asked, read_body(body))

    def attempt(self, candidate: Candidate = PLANNER.candidates[0]) -> AttemptRun:
        return AttemptRun(self.parts, self.record, self.routing, self.reply, self.sent, candidate)

    async def run(
        self, candidate: Candidate = PLANNER.candidates[0], *, waited_s: float = 0.0
    ) -> Setback | None:
        return await self.attempt(candidate).run(waited_s=waited_s, after=None)

    @property
    def left_once(self) -> bool:
        """One seat was asked for, and given back."""
        return (
            self.admission_queue.left == self.admission_queue.tickets
            and len(self.admission_queue.tickets) == 1
        )

    def open_breaker(self, *models: str) -> None:
        """Five failures in a row, of each of these."""
        for model in models:
            for _ in range(5):
                admitted = self.breakers.admit(Provider.LOCAL, model)
                assert isinstance(admitted, Allowed)
                self.breakers.ended(admitted, LATE, completed=False)
